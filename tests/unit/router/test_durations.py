import pytest

from forkproxy.router.durations import grpc_timeout, grpc_timeout_ms


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (b"1H", 3_600_000),
        (b"2M", 120_000),
        (b"3S", 3000),
        (b"4m", 4),
        (b"5000u", 5),
        (b"5001u", 6),
        (b"1n", 1),
        (b"1000001n", 2),
        (b"0m", 0),
        (b" 7m", 7),
        (b"99999999S", 99_999_999_000),
    ],
)
def test_what_a_header_says(value, ms):
    assert grpc_timeout_ms([(b"a", b"b"), (b"grpc-timeout", value)]) == ms


@pytest.mark.parametrize("value", [b"", b"m", b"5", b"-5m", b"5 m", b"5mm", b"5x", b"123456789m", b"1.5S", b"5M\xe9"])
def test_what_says_nothing(value):
    assert grpc_timeout_ms([(b"grpc-timeout", value)]) is None


def test_no_header():
    assert grpc_timeout_ms([(b"a", b"b")]) is None


@pytest.mark.parametrize(
    ("ms", "value"),
    [
        (0, b"0m"),
        (99_999_999, b"99999999m"),
        (100_000_000, b"100000S"),
        (100_000_000_000, b"1666666M"),
        (10**13, b"2777777H"),
        (10**18, b"99999999H"),
    ],
)
def test_it_is_written_with_eight_digits_at_most(ms, value):
    assert grpc_timeout(ms) == value
