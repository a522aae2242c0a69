"""done() once, whatever happens to the workers."""

from forkproxy.supervisor.refresh import Refreshes


class FakeWorker:
    def __init__(self, pid, ready=True, aborted_at=0.0):
        self.pid = pid
        self.ready = ready
        self.aborted_at = aborted_at
        self.sent = []
        self.channel = self

    def send(self, message):
        self.sent.append(message)


def test_done_after_the_last_answer():
    refreshes, done = Refreshes(), []
    workers = [FakeWorker(1), FakeWorker(2)]
    refreshes.ask(workers, lambda: done.append(1))
    (message,) = workers[0].sent
    assert message["op"] == "flush"
    refreshes.on_flushed(1, message["round"])
    refreshes.on_flushed(1, message["round"])
    assert done == []
    refreshes.on_flushed(2, message["round"])
    refreshes.on_flushed(2, message["round"])
    assert done == [1]


def test_the_dead_and_the_unready_are_not_waited_for():
    refreshes, done = Refreshes(), []
    refreshes.ask([FakeWorker(1), FakeWorker(2, ready=False), FakeWorker(3, aborted_at=1.0)], lambda: done.append(1))
    refreshes.on_gone(1)
    assert done == [1]


def test_nobody_to_ask():
    done = []
    Refreshes().ask([], lambda: done.append(1))
    assert done == [1]


def test_rounds_are_told_apart():
    refreshes, done = Refreshes(), []
    worker = FakeWorker(1)
    refreshes.ask([worker], lambda: done.append("first"))
    refreshes.ask([worker], lambda: done.append("second"))
    refreshes.on_flushed(1, worker.sent[1]["round"])
    refreshes.on_flushed(1, worker.sent[0]["round"])
    refreshes.on_flushed(1, 99)
    assert done == ["second", "first"]
