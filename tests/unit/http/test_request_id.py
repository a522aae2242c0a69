"""Request ids."""

import uuid

from forkproxy.http.request_id import BATCH, make_request_ids


def test_a_batch_of_distinct_version_4_uuids():
    made = make_request_ids()
    assert len(made) == len(set(made)) == BATCH
    for text in made:
        parsed = uuid.UUID(text.decode())
        assert (str(parsed).encode(), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)


def test_every_random_digit_varies():
    made = [*make_request_ids(), *make_request_ids()]
    for position in range(36):
        values = {text[position] for text in made}
        expected = {8: 1, 13: 1, 18: 1, 23: 1, 14: 1, 19: 4}.get(position, 16)
        assert len(values) == expected, position


def test_batches_differ():
    assert not set(make_request_ids()) & set(make_request_ids())
