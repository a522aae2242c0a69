"""Which cells count for which address of a DNS cluster."""

from forkproxy.upstream.endpoint import StatSlots

A, B, C, D = (("127.0.0.1", port) for port in (1, 2, 3, 4))


def slots(of, *listed):
    return [slot for slot, _ in of.assign(listed)]


def test_an_address_keeps_its_slot_while_it_is_listed():
    of = StatSlots("0123")
    assert of.assign([A, B]) == [(0, "0"), (1, "1")]
    assert slots(of, B, C, A) == [1, 2, 0]
    assert slots(of, A, B, C) == [0, 1, 2]


def test_a_new_address_does_not_take_over_another_s_figures_while_there_are_free_slots():
    of = StatSlots("0123")
    slots(of, A)
    assert slots(of, B) == [1]
    assert slots(of, C) == [2]
    assert slots(of, D) == [3]
    # Now the one that has been free for longest.
    assert slots(of, A, D) == [0, 3]


def test_beyond_the_capacity_addresses_share_the_last():
    of = StatSlots("01")
    assert slots(of, A, B, C, D) == [0, 1, 1, 1]
    assert slots(of, C) == [1]
    assert slots(of, C, A) == [1, 0]


def test_every_process_agrees():
    one, two = StatSlots("012"), StatSlots("012")
    for listed in ([A, B, C], [D], [C, B], [A, D], [B, A, C]):
        assert slots(one, *listed) == slots(two, *listed)


def test_the_next_generation_goes_on_from_there():
    before, after = StatSlots("0123"), StatSlots("abcd")
    slots(before, A, B)
    slots(before, B)
    after.adopt(before)
    assert after.assign([B, C]) == [(1, "b"), (2, "c")]
    # What the generation before still does is its own.
    assert slots(before, B, D) == [1, 2]
    assert slots(after, B, C) == [1, 2]
