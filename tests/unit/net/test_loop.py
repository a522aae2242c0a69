import os
import socket

from forkproxy.net import poller
from forkproxy.net.loop import Loop


class Flusher:
    def __init__(self, log, action=None):
        self.log = log
        self.action = action

    def flush(self):
        self.log.append(self)
        if self.action:
            self.action()


def test_an_exception_in_one_callback_leaves_the_others_of_the_pass_running():
    errors, ran = [], []
    loop = Loop(lambda exception, callback: errors.append((exception, callback)))
    pairs = [socket.socketpair() for _ in range(3)]

    def fails(mask):
        raise ValueError("broken")

    for index, (ours, peer) in enumerate(pairs):
        peer.send(b"x")
        loop.register(ours.fileno(), poller.READ, fails if index == 0 else lambda mask, index=index: ran.append(index))
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(lambda: ran.append("soon"))
    loop.call_later(0, lambda: {}["missing"])
    loop.call_later(0, lambda: ran.append("timer"))
    flusher = Flusher(ran, lambda: int("x"))
    loop.pending += [flusher, Flusher(ran)]
    loop.run_once(0)

    assert [type(error) for error, _ in errors] == [ValueError, ValueError, ZeroDivisionError, KeyError]
    assert errors[0][1] is fails
    assert errors[1][1] is flusher
    assert {1, 2, "soon", "timer"} <= {item for item in ran if not isinstance(item, Flusher)}
    assert sum(isinstance(item, Flusher) for item in ran) == 2
    for ours, peer in pairs:
        ours.close()
        peer.close()
    loop.close()


def test_a_closed_descriptor_is_not_reused_within_the_pass(loop):
    # Two sockets are ready. The first one's handler closes the second and makes a new one: the new one must not get the
    # second's number, or the second's event of this pass would reach it.
    first, first_peer = socket.socketpair()
    second, second_peer = socket.socketpair()
    first_peer.send(b"x")
    second_peer.send(b"x")
    fd = second.fileno()
    reached, made = [], []

    def on_first(mask):
        loop.close_later(second)
        made.append(os.dup(first.fileno()))
        reached.append("first")

    loop.register(first.fileno(), poller.READ, on_first)
    loop.register(fd, poller.READ, lambda mask: reached.append("second"))
    loop.run_once(0)
    assert reached == ["first"]
    assert made[0] != fd
    reused = os.dup(first.fileno())
    assert reused == fd, "the descriptor is given back at the end of the pass"
    for each in (*made, reused):
        os.close(each)
    for sock in (first, first_peer, second_peer):
        sock.close()


def test_unregistering_within_a_pass_silences_the_event_that_was_already_polled(loop):
    pairs = [socket.socketpair() for _ in range(2)]
    reached = []

    def handler(own, other):
        def on_event(mask):
            reached.append(own)
            loop.unregister(pairs[other][0].fileno())

        return on_event

    for own, (ours, peer) in enumerate(pairs):
        peer.send(b"x")
        loop.register(ours.fileno(), poller.READ, handler(own, 1 - own))
    loop.run_once(0)
    assert len(reached) == 1
    for ours, peer in pairs:
        ours.close()
        peer.close()


def test_what_is_asked_for_soon_or_written_in_a_callback_happens_in_the_same_pass(loop):
    log = []
    flusher = Flusher(log)
    loop.call_soon(lambda: loop.pending.append(flusher))
    loop.call_later(0, lambda: loop.call_soon(lambda: log.append("after the timer")))
    loop.run_once(0)
    assert log == [flusher, "after the timer"]


def test_now_and_the_heartbeat_move_with_the_passes(loop):
    beats = []
    loop.on_pass = beats.append
    before = loop.now
    loop.run_once(0)
    loop.run_once(0.002)
    assert before <= beats[0] < beats[1] == loop.now


def test_a_timer_ends_the_wait(loop):
    fired = []
    loop.call_later(0.01, lambda: (fired.append(loop.now), loop.stop()))
    start = loop.now
    loop.run()
    assert 0.01 <= fired[0] - start < 5


def test_a_cancelled_call_later_does_not_run(loop):
    fired = []
    loop.call_later(0, lambda: fired.append(1)).cancel()
    loop.run_once(0)
    assert fired == []


def test_wall_is_the_time_of_day_of_now(loop):
    import time

    assert abs(loop.wall() - time.time()) < 1.0


def test_a_stepped_clock_is_followed_and_no_timer_minds(loop, monkeypatch):
    import time

    fired = []
    loop.timer(lambda: fired.append(1)).arm(loop.now + 60.0)
    before = loop.wall()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 86_400 * 10**9)
    loop.now += 1.0
    assert abs(before - 86_400 + 1.0 - loop.wall()) < 1.0
    loop.run_once(0)
    assert fired == []


def test_hours_that_passed_at_once_run_every_timer_once(loop):
    fired = []

    class Every:
        def __init__(self):
            self.timer = loop.timer(self)
            self.timer.arm(loop.now + 1.0)

        def __call__(self):
            fired.append(loop.now)
            self.timer.arm(loop.now + 1.0)

    for _ in range(3):
        Every()
    loop.now += 7200.0
    loop._finish_pass()
    assert fired == [loop.now] * 3


def test_unregistering_an_unknown_descriptor_is_no_error(loop):
    loop.unregister(12345)


def test_a_timer_that_is_always_due_does_not_keep_the_pass_from_ending(loop):
    fired = []

    def again():
        fired.append(1)
        loop.call_later(0, again)

    loop.call_later(0, again)
    loop.passes(3)
    assert len(fired) == 3
