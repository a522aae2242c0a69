"""``frozen`` makes what ``@dataclass(frozen=True, slots=True)`` makes."""

import copy
import dataclasses
import pickle
from dataclasses import dataclass, field

import pytest

from forkproxy.config.values import frozen, getter_of, is_frozen, replaced, restored

made_lists = []


def empty_list():
    made_lists.append(1)
    return []


class Shape:
    """A point."""

    x: int
    y: object = 0
    unseen: str = field(default="u", repr=False, compare=False)
    parts: list = field(default_factory=empty_list)


def body(cls):
    """A class of its own with the same body."""
    return type(
        cls.__name__, (), {key: each for key, each in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    )


Point = frozen(body(Shape))
Usual = dataclass(frozen=True, slots=True)(body(Shape))


@frozen
class Named(Point):
    """With a field more, and one's own way to be shown."""

    name: str = ""

    def __repr__(self):
        return f"<{self.name}>"

    @property
    def both(self):
        return self.x, self.name


@frozen
class Nothing:
    """Without fields."""


@frozen
class One:
    """With one."""

    only: object


def both(*args, **kwargs):
    return Point(*args, **kwargs), Usual(*args, **kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {}), ((1, 2), {"parts": [3]}), ((1, None, "v", ["p"]), {}), ((), {"x": 5, "unseen": "w"})],
)
def test_objects_are_alike(args, kwargs):
    one, usual = both(*args, **kwargs)
    assert getter_of(Point)(one) == getter_of(Usual)(usual)
    assert dataclasses.asdict(one) == dataclasses.asdict(usual)
    assert repr(one) == repr(usual)
    assert [each.name for each in dataclasses.fields(one)] == [each.name for each in dataclasses.fields(usual)]
    assert one.__match_args__ == usual.__match_args__
    assert one.__slots__ == usual.__slots__
    assert not hasattr(one, "__dict__")


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3, 4, 5), {}), ((1,), {"z": 1}), ((1,), {"x": 1})])
def test_wrong_arguments_are_refused_alike(args, kwargs):
    for cls in (Point, Usual):
        with pytest.raises(TypeError):
            cls(*args, **kwargs)


def test_the_first_object_of_a_class_may_be_a_failure():
    @frozen
    class Fresh:
        """Not made before."""

        x: int

    with pytest.raises(TypeError, match=r"Fresh.__init__\(\) missing 1 required positional argument: 'x'"):
        Fresh()
    assert Fresh(1).x == 1


def test_each_has_defaults_of_its_own():
    one, other = Point(1), Point(1)
    assert one.parts == other.parts == []
    assert one.parts is not other.parts
    before = len(made_lists)
    Point(1, parts=[1])
    assert len(made_lists) == before


def test_they_are_equal_by_what_is_compared():
    assert Point(1) == Point(1, unseen="other") != Point(2)
    assert One(1) == One(1) != One(2)
    assert Nothing() == Nothing()
    assert Point(1) != Usual(1)
    assert Named(1) != Point(1)
    assert (One((1, 2)) == (1, 2)) is False
    assert {One(1): "a"}[One(1)] == "a"
    assert hash(Nothing()) == hash(Nothing())
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(1))


@pytest.mark.parametrize("make", [lambda: Point(1), lambda: Named(1, name="n"), lambda: One(1), Nothing])
def test_they_do_not_change(make):
    one = make()
    assert is_frozen(type(one))
    for name in ("x", "only", "new"):
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            setattr(one, name, 2)
        with pytest.raises(dataclasses.FrozenInstanceError, match=name):
            delattr(one, name)
    assert one == make()


def test_who_inherits():
    one = Named(1, 2, name="n")
    assert (repr(one), one.both, one.y) == ("<n>", (1, "n"), 2)

    class Plain(Named):
        pass

    assert Plain(3, name="p").both == (3, "p")


def test_copies():
    one = Named(1, name="n", parts=[1])
    assert copy.copy(one) == one
    assert copy.copy(one).parts is one.parts
    assert copy.deepcopy(one).parts is not one.parts
    assert pickle.loads(pickle.dumps(one)) == one
    assert dataclasses.replace(one, y=3) == replaced(one, y=3) == Named(1, 3, parts=[1], name="n")
    assert restored(Named, 1, 2, "u", [], "n") == Named(1, 2, name="n")


def test_they_match():
    match Named(1, 2, name="n"):
        case Named(x=1, name=name):
            assert name == "n"
        case _:
            pytest.fail("no match")


def test_what_is_frozen():
    @dataclass(slots=True)
    class Changing:
        x: int

    assert [is_frozen(cls) for cls in (Point, Usual, Changing, int, Shape)] == [True, True, False, False, False]
