import pytest

from tests.support.live_loop import LiveLoop


@pytest.fixture
def loop():
    loop = LiveLoop()
    yield loop
    loop.close()
