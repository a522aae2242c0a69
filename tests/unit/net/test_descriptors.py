"""Limits and numbers of descriptors, in a process of their own."""

import os
import resource

import pytest

from forkproxy.net import descriptors


@pytest.fixture
def limited():
    """``limited(soft, hard)`` sets the limit of this process for the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_to_what_is_allowed(limited):
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limited(hard // 2)
    assert descriptors.raise_limit() == hard
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


@pytest.mark.parametrize(("limit", "edge"), [(64, 48), (1000, 750), (3, 3)])
def test_a_quarter_is_left_for_others(monkeypatch, limit, edge):
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _which: (limit, limit))
    assert descriptors.edge() == edge


def test_the_lowest_free_number_is_the_next_descriptor_s():
    number = descriptors.lowest_free(0)
    fd = os.dup(0)
    os.close(fd)
    assert fd == number


def test_no_free_number(limited):
    limited(descriptors.lowest_free(0))
    assert descriptors.lowest_free(0) > 1 << 20
