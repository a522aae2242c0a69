"""Generations that were replaced while some of their workers still drain: what they have open, and how many there may be.

Every reload leaves workers behind as long as their connections take, at most the drain time. With long connections and many
reloads they would add up, each with the memory of a whole generation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from forkproxy import log
from forkproxy.supervisor.generation_run import GenerationRun
from forkproxy.supervisor.slot import KILL_AFTER_ABORT_S, WorkerHandle

_log = log.get_logger("supervisor")


@dataclass(eq=False, slots=True)
class OldGeneration:
    """Some workers of one number."""

    number: int
    workers: list[WorkerHandle] = field(default_factory=list)

    @property
    def connections(self) -> int:
        """Downstream connections open at the last heartbeats."""
        return sum(worker.connections for worker in self.workers)

    def time_left_s(self, now: float) -> float:
        """For how long it may go on."""
        return max(0.0, max(worker.deadline for worker in self.workers) - KILL_AFTER_ABORT_S - now)


def old_generations(workers: Iterable[WorkerHandle], running: GenerationRun) -> list[OldGeneration]:
    """Those that drain beside the running one, the oldest first."""
    found: dict[int, OldGeneration] = {}
    for worker in workers:
        if worker.draining and worker.run is not running:
            number = worker.run.number
            found.setdefault(number, OldGeneration(number)).workers.append(worker)
    return [found[number] for number in sorted(found)]


def cut_off(generations: list[OldGeneration], most: int, now: float) -> None:
    """End the oldest ones at once when there are more than ``most``."""
    for generation in generations[: max(0, len(generations) - most)]:
        _log.warning(
            "an old generation is cut off: too many reloads within the drain time",
            generation=generation.number,
            connections=generation.connections,
            most=most,
            hint="--max-old-generations, or a shorter --drain-time-s",
        )
        for worker in generation.workers:
            worker.stop(now)
