"""Path normalisation."""

import pytest

from forkproxy.http.path import normalise_path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/", b"/"),
        (b"/a/b", b"/a/b"),
        (b"/a/./b", b"/a/b"),
        (b"/a/../b", b"/b"),
        (b"/../../a", b"/a"),
        (b"/a/..", b"/"),
        (b"/a/.", b"/a/"),
        (b"/a/b/..", b"/a/"),
        (b"/%61%2d%7E", b"/a-~"),
        (b"/%2e%2E/a", b"/a"),
        (b"/a%2fb%20", b"/a%2fb%20"),
        (b"/a\\b", b"/a/b"),
        (b"/a\\..\\b", b"/b"),
        (b"/a?b=../c%41\\", b"/a?b=../c%41\\"),
        (b"/a//b", b"/a//b"),
        (b"/%", b"/%"),
        (b"/%4", b"/%4"),
    ],
)
def test_normalize(path, found):
    assert normalise_path(path, True, False, "KEEP_UNCHANGED") == ("ok", found)


def test_nothing_asked_nothing_done():
    assert normalise_path(b"/a/../b//c%2f", False, False, "KEEP_UNCHANGED") == ("ok", b"/a/../b//c%2f")
    assert normalise_path(b"/a%2f", False, False, "IMPLEMENTATION_SPECIFIC_DEFAULT") == ("ok", b"/a%2f")


def test_merging_slashes_leaves_the_query():
    assert normalise_path(b"//a///b?c//d", False, True, "KEEP_UNCHANGED") == ("ok", b"/a/b?c//d")


def test_slashes_alone_leave_an_empty_segment():
    assert normalise_path(b"///?a", False, True, "KEEP_UNCHANGED") == ("ok", b"//?a")
    assert normalise_path(b"/", False, True, "KEEP_UNCHANGED") == ("ok", b"/")


def test_an_escaped_nul_is_refused():
    assert normalise_path(b"/a%00b?c", True, True, "KEEP_UNCHANGED") == ("reject", b"/a%00b?c")
    assert normalise_path(b"/a?%00", True, True, "KEEP_UNCHANGED") == ("ok", b"/a?%00")
    assert normalise_path(b"/a%00b", False, True, "KEEP_UNCHANGED") == ("ok", b"/a%00b")


def test_merging_comes_after_dots():
    assert normalise_path(b"/a//../b", True, True, "KEEP_UNCHANGED") == ("ok", b"/a/b")


@pytest.mark.parametrize(
    ("action", "outcome"),
    [("REJECT_REQUEST", "reject"), ("UNESCAPE_AND_REDIRECT", "redirect"), ("UNESCAPE_AND_FORWARD", "ok")],
)
@pytest.mark.parametrize(("path", "found"), [(b"/a%2Fb", b"/a/b"), (b"/a%5cb?%2f", b"/a\\b?%2f")])
def test_escaped_slashes(action, outcome, path, found):
    assert normalise_path(path, False, False, action) == (outcome, found)
    assert normalise_path(b"/a", False, False, action) == ("ok", b"/a")


def test_unescaped_slashes_are_then_normalised():
    assert normalise_path(b"/a%2f..%5Cb", True, False, "UNESCAPE_AND_FORWARD") == ("ok", b"/b")
