"""What becomes of generations that are gone."""

import gc
import weakref

import pytest

from forkproxy.config.problems import ConfigError
from forkproxy.stats.counters import Registry
from forkproxy.supervisor.exits import ConfigurationRefused
from forkproxy.supervisor.generations import Generations
from forkproxy.supervisor.options import Options


class Part:
    """Of a generation: its parts refer to each other."""

    def __init__(self):
        self.other = self


@pytest.fixture(autouse=True)
def unfrozen():
    yield
    gc.unfreeze()


def test_what_a_generation_leaves_goes_when_the_next_is_made():
    parts = []

    def build(bootstrap, registry, number):
        parts.append(weakref.ref(Part()))
        gc.freeze()
        raise ConfigError("", 0, 0, "cannot be built")

    generations = Generations(Options(config_path="/dev/null"), Registry(), load=lambda: None, build=build, explain=str)
    generations.put_in_force(object())
    for made in range(1, 4):
        with pytest.raises(ConfigurationRefused):
            generations.make()
        assert [part() is not None for part in parts] == [False] * (made - 1) + [True]
    assert gc.isenabled()
