"""What the making of a generation leaves behind is given back."""

import gc
import weakref

import pytest

from forkproxy.config.load import load_file
from forkproxy.config.schema import forget_schema, schema
from forkproxy.supervisor import memory


@pytest.fixture(autouse=True)
def unfrozen():
    yield
    gc.unfreeze()


def test_a_configuration_does_not_hold_the_schema():
    forget_schema()  # what tests before this one may hold is another one
    result = load_file("etc/forkproxy.yaml")
    assert result.verdict == "runs"
    used = weakref.ref(schema())
    assert used() is not None
    memory.settle()
    assert used() is None
    # It is there again when somebody asks.
    assert load_file("etc/forkproxy.yaml").verdict == "runs"


def test_what_is_alive_is_frozen():
    memory.settle()
    assert gc.get_freeze_count() > 1000


def test_what_refers_to_itself_goes_before_the_next_is_made():
    class Gone:
        def __init__(self):
            self.own = self

    gone = weakref.ref(Gone())
    memory.settle()
    assert gone() is not None
    memory.clear()
    assert gone() is None
