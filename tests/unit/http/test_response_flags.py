"""Names of response flags."""

from forkproxy.http import response_flags as flags


def test_every_flag_has_both_names_and_a_bit_of_its_own():
    kinds = {"_BEFORE_FAILURE", "NO_RETRY_LEFT", "NO_RETRY_ALLOWED"}
    constants = {name: value for name, value in vars(flags).items() if name.isupper() and isinstance(value, int)}
    bits = [value for name, value in constants.items() if name not in kinds]
    assert len(set(bits)) == len(bits) == len(flags.SHORT) == len(flags.LONG)
    assert set(bits) == set(flags.SHORT) == set(flags.LONG)
    assert all(flags.SHORT[getattr(flags, name)] == name for name in flags.SHORT.values())


def test_names():
    assert flags.names(0) == ""
    assert flags.names(flags.UF | flags.URX) == "UF,URX"
    assert flags.names(flags.UF | flags.NO_RETRY_LEFT) == "URX,UF"
    assert flags.names(flags.UC | flags.NO_RETRY_ALLOWED) == "UO,UC"
    assert flags.names(flags.NO_RETRY_LEFT) == "URX"
    assert flags.names(flags.DC | flags.DI | flags.NO_RETRY_LEFT, flags.LONG) == (
        "DelayInjected,UpstreamRetryLimitExceeded,DownstreamConnectionTermination"
    )
    assert flags.names(flags.URX | flags.LH) == "LH,URX"
    assert flags.names(flags.NR, flags.LONG) == "NoRouteFound"
