import weakref

from forkproxy.net.timers import NEVER, Timers


def test_a_timer_fires_once_at_its_deadline():
    timers, fired = Timers(), []
    timer = timers.timer(lambda: fired.append(1))
    timer.arm(10.0)
    timers.run_due(9.99)
    assert fired == []
    timers.run_due(10.0)
    timers.run_due(11.0)
    assert fired == [1]
    assert timer.deadline == NEVER


def test_moving_a_deadline_later_pushes_nothing_and_fires_at_the_later_time():
    timers, fired = Timers(), []
    timer = timers.timer(lambda: fired.append(1))
    timer.arm(10.0)
    for deadline in range(11, 1000):
        timer.arm(float(deadline))
    assert len(timers.heap) == 1
    timers.run_due(998.0)
    assert fired == []
    timers.run_due(999.0)
    assert fired == [1]


def test_moving_a_deadline_earlier_fires_early_and_only_once():
    timers, fired = Timers(), []
    timer = timers.timer(lambda: fired.append(1))
    timer.arm(100.0)
    timer.arm(5.0)
    timers.run_due(5.0)
    timers.run_due(100.0)
    assert fired == [1]


def test_a_disarmed_timer_does_not_fire_and_can_be_armed_again():
    timers, fired = Timers(), []
    timer = timers.timer(lambda: fired.append(1))
    timer.arm(5.0)
    timer.disarm()
    timers.run_due(6.0)
    assert fired == []
    timer.arm(7.0)
    timers.run_due(7.0)
    assert fired == [1]


def test_a_callback_may_arm_itself_and_disarm_others():
    timers, fired = Timers(), []
    second = timers.timer(lambda: fired.append("second"))
    again = iter([20.0])
    first = timers.timer(lambda: (fired.append("first"), second.disarm(), first.arm(next(again, 99.0))))
    first.arm(10.0)
    second.arm(10.0)
    timers.run_due(10.0)
    assert fired == ["first"]
    timers.run_due(20.0)
    assert fired == ["first", "first"]


def test_equal_deadlines_fire_in_the_order_of_arming():
    timers, fired = Timers(), []
    for name in "abc":
        timers.timer(lambda name=name: fired.append(name)).arm(1.0)
    timers.run_due(1.0)
    assert fired == ["a", "b", "c"]


def test_an_exception_leaves_the_other_due_timers_to_the_next_call():
    timers, fired = Timers(), []
    timers.timer(lambda: 1 / 0).arm(1.0)
    timers.timer(lambda: fired.append(1)).arm(1.0)
    try:
        timers.run_due(1.0)
    except ZeroDivisionError:
        timers.run_due(1.0)
    assert fired == [1]


def test_a_timer_that_arms_itself_for_now_waits_for_the_next_call():
    timers, fired = Timers(), []
    timer = timers.timer(lambda: (fired.append(1), timer.arm(1.0)))
    timer.arm(1.0)
    timers.run_due(1.0)
    assert fired == [1]
    timers.run_due(1.0)
    assert fired == [1, 1]


def test_a_cancelled_timer_lets_its_callback_go_at_once():
    timers = Timers()
    fired = []

    class Owner:
        def on_timer(self):
            fired.append(1)

    owner = Owner()
    gone = weakref.ref(owner)
    timer = timers.timer(owner.on_timer)
    timer.arm(3600.0)
    del owner
    timer.cancel()
    timer.cancel()
    assert gone() is None
    timers.run_due(3600.0)
    assert fired == []


def test_cancelled_timers_do_not_pile_up_and_the_others_still_fire():
    timers, fired = Timers(), []
    kept = timers.timer(lambda: fired.append("kept"))
    kept.arm(10.0)
    disarmed = timers.timer(lambda: fired.append("disarmed"))
    disarmed.arm(3.0)
    disarmed.disarm()
    heap = timers.heap
    for number in range(50_000):
        timer = timers.timer(lambda: fired.append("cancelled"))
        timer.arm(3600.0 + number)
        timer.cancel()
    assert len(timers.heap) < 3000
    assert timers.heap is heap
    disarmed.arm(5.0)
    timers.run_due(9999.0)
    assert fired == ["disarmed", "kept"]
