"""Stat groups: slotted objects with plain numbers, declared by annotations. counters.py tells how they live."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import ClassVar, TypeAlias, cast

# A plain figure of a group: write ``group.name += 1``. Counters only grow; of gauges the workers' values are added up.
Counter: TypeAlias = int
Gauge: TypeAlias = int
# A gauge that every worker sets to the same thing (membership_total): the largest value is shown, not the sum.
SharedGauge: TypeAlias = int


class Histogram(dict[int, int]):
    """Samples since the last flush, value → count: ``histogram[ms] += 1``. Whole numbers from 0 on."""

    __slots__ = ()

    def __missing__(self, value: int) -> int:
        return 0


class StatusCodes(dict[int, int]):
    """HTTP status → count since the last flush: ``codes[status] += 1``. Shown as name_404, _4xx and _completed."""

    __slots__ = ()

    def __missing__(self, status: int) -> int:
        return 0


class StatusClasses(StatusCodes):
    """The same on the path, but shown as name_1xx … name_5xx and name_completed only, also while they are zero."""

    __slots__ = ()


class Labels(dict[str, int]):
    """Figures under names known beforehand: ``versions["TLSv1.3"] += 1``. Shown as name.label once not zero.

    The group declares the possible labels in ``labels``; others are counted nowhere.
    """

    __slots__ = ()

    def __missing__(self, label: str) -> int:
        return 0


# A status-code block is one page: cell i counts status 100 + i; statuses outside 100–599 share the cell after them.
OTHER_STATUS = 500


_COMPANION = re.compile("_(active|buffered)$")


class Layout:
    """What a group class consists of: computed once per class from its annotations.

    Cells of a group: counters, gauges, shared gauges; one "used up to" cell per block; six per StatusClasses; one per
    label.
    """

    __slots__ = (
        *("additive", "blocks", "cells", "classes", "counters", "figures", "gauges", "getter", "histograms", "labels"),
        *("companions", "pack", "shared_gauges", "status_codes"),
    )

    def __init__(self, fields: Mapping[str, str], labels: Mapping[str, tuple[str, ...]]) -> None:
        def of(kind: str) -> tuple[str, ...]:
            return tuple(name for name, its_kind in fields.items() if its_kind == kind)

        self.counters = of("Counter")
        self.gauges = of("Gauge")
        self.shared_gauges = of("SharedGauge")
        self.histograms = of("Histogram")
        self.status_codes = of("StatusCodes")
        self.figures = self.counters + self.gauges + self.shared_gauges
        self.blocks = self.histograms + self.status_codes
        # Gauge → position of the counter that shows whether the gauge ever moved: upstream_rq_active → upstream_rq_total.
        self.companions = {
            gauge: self.counters.index(counter)
            for gauge in self.gauges
            for counter in (_COMPANION.sub("_total", gauge),)
            if counter in self.counters
        }
        position = len(self.figures) + len(self.blocks)
        self.classes: dict[str, int] = {}
        for name in of("StatusClasses"):
            self.classes[name] = position
            position += 6
        self.labels: dict[str, dict[str, int]] = {}
        for name in of("Labels"):
            self.labels[name] = {label: position + offset for offset, label in enumerate(labels.get(name, ()))}
            position += len(self.labels[name])
        self.cells = position
        additive_tail = position - len(self.figures) - len(self.blocks)
        no_sums = len(self.gauges) + len(self.shared_gauges) + len(self.blocks)
        self.additive = (True,) * len(self.counters) + (False,) * no_sums + (True,) * additive_tail
        self.pack = struct.Struct(f"={len(self.figures)}q").pack_into
        self.getter = _getter_of(self.figures)

    def positions(self) -> dict[str, int]:
        """Every cell but those of blocks, by a name that is the same in other versions: ``upstream_rq_total``, ``rq.2``."""
        found = {name: position for position, name in enumerate(self.figures)}
        for name, first in self.classes.items():
            found.update({f"{name}.{offset}": first + offset for offset in range(6)})
        for name, labels in self.labels.items():
            found.update({f"{name}.{label}": position for label, position in labels.items()})
        return found


def _getter_of(names: tuple[str, ...]) -> Callable[[object], tuple[int, ...]]:
    if not names:
        return lambda group: ()
    if len(names) == 1:
        single = attrgetter(names[0])
        return lambda group: (single(group),)
    return cast("Callable[[object], tuple[int, ...]]", attrgetter(*names))


_Set = Callable[[object, object], None]

_KINDS = frozenset({"Counter", "Gauge", "SharedGauge", "Histogram", "StatusCodes", "StatusClasses", "Labels"})


_FRESH: dict[str, Callable[[], object]] = {
    "Histogram": Histogram,
    "StatusCodes": StatusCodes,
    "StatusClasses": StatusClasses,
    "Labels": Labels,
}


class StatGroupType(type):
    """Turns a group's annotations into slots and a layout."""

    layout: Layout
    fields: dict[str, str]
    suffixes: dict[str, tuple[str, ...]]
    setters: tuple[tuple[_Set, ...], tuple[tuple[_Set, Callable[[], object]], ...]]
    """Of the plain figures; of the others, with what makes one."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, object]) -> StatGroupType:
        own: dict[str, str] = {}
        annotations = cast("dict[str, object]", namespace.get("__annotations__", {}))
        for field, annotation in annotations.items():
            kind = str(annotation).rpartition(".")[2]
            if kind in _KINDS:
                own[field] = kind
            elif not str(annotation).rpartition("typing.")[2].startswith("ClassVar"):
                raise TypeError(
                    f"{name}.{field}: {annotation!r} is no kind of statistic; the module that declares a group needs "
                    "'from __future__ import annotations'"
                )
        namespace["__slots__"] = (*cast("tuple[str, ...]", namespace.get("__slots__", ())), *own)
        cls = super().__new__(mcs, name, bases, namespace)
        inherited: dict[str, str] = {}
        for base in reversed(bases):
            inherited.update(getattr(base, "fields", {}))
        cls.fields = inherited | own
        cls.layout = Layout(cls.fields, cast("Mapping[str, tuple[str, ...]]", getattr(cls, "labels", {})))
        totals = cast("Mapping[str, str]", getattr(cls, "totals", {}))
        cls.suffixes = {
            field: ("",)
            if getattr(cls, "bare", False)
            else (field.replace("__", "."), *([totals[field]] if field in totals else []))
            for field in cls.fields
        }
        setters = {field: getattr(cls, field).__set__ for field in cls.fields}
        cls.setters = (
            tuple([setters[field] for field, kind in cls.fields.items() if kind not in _FRESH]),
            tuple([(setters[field], _FRESH[kind]) for field, kind in cls.fields.items() if kind in _FRESH]),
        )
        return cls


class StatGroup(metaclass=StatGroupType):
    """Figures that one thing counts; subclasses annotate them.

        class ClusterStats(StatGroup):
            upstream_rq_total: Counter
            upstream_rq_active: Gauge
            upstream_cx_length_ms: Histogram
            upstream_rq: StatusCodes
            circuit_breakers__default__cx_open: Gauge      # "__" is a dot in the name

    Everything starts at zero. ``totals`` names stats that are sums: attribute → the stat name it also counts towards.
    ``labels``: for each Labels attribute, the labels it may count. ``bare``: the stat's name is the prefix alone.
    ``lazy``: histograms that are not shown before their first sample. ``zeros``: names of counters that are always zero, shown
    once the counter that is their key has counted; "" for always. ``used_with``: gauges that ?usedonly shows
    once that other figure was written, "" for always.
    ``hidden``: not in /stats; the plain figures are in ``Snapshot.hidden``.
    """

    layout: ClassVar[Layout]
    fields: ClassVar[dict[str, str]]
    suffixes: ClassVar[dict[str, tuple[str, ...]]]
    """Attribute → the names it counts towards, behind the prefix; "" is the prefix itself."""
    totals: ClassVar[Mapping[str, str]] = {}
    labels: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    lazy: ClassVar[frozenset[str]] = frozenset()
    zeros: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    used_with: ClassVar[Mapping[str, str]] = {}
    bare: ClassVar[bool] = False
    hidden: ClassVar[bool] = False

    def __init__(self) -> None:
        figures, tables = type(self).setters
        for set_ in figures:
            set_(self, 0)
        for set_, fresh in tables:
            set_(self, fresh())

    def __repr__(self) -> str:
        told = (f"{name}={getattr(self, name)}" for name in type(self).fields if getattr(self, name))
        return f"<{type(self).__name__} {' '.join(told)}>"


class _Uncounted(dict[int, int]):
    """A table of figures that nobody will see."""

    __slots__ = ()

    def __missing__(self, value: int) -> int:
        return 0

    def __setitem__(self, value: int, count: int) -> None:
        pass


_UNCOUNTED = _Uncounted()


def keep_nothing(group: StatGroup) -> None:
    """Nobody will see what this group counts: its tables stay empty, for nobody would empty them."""
    for name, kind in type(group).fields.items():
        if kind in _FRESH:
            setattr(group, name, _UNCOUNTED)


class CounterValue(StatGroup):
    """One counter under a name of its own: ``counter.value += 1``."""

    bare = True
    value: Counter


class GaugeValue(StatGroup):
    """One gauge under a name of its own; the workers' values are added up."""

    bare = True
    value: Gauge


class SharedGaugeValue(StatGroup):
    """One gauge that every worker sets to the same thing."""

    bare = True
    value: SharedGauge


class HistogramValue(StatGroup):
    """One histogram under a name of its own: ``histogram.value[ms] += 1``."""

    bare = True
    value: Histogram
