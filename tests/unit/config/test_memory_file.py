"""Bytes that a library reads as a file."""

import os

import pytest

from forkproxy.config.memory_file import memory_file


def test_the_file_holds_the_bytes_and_goes_with_the_context():
    with memory_file(b"line\n" * 1000) as path:
        with open(path, "rb") as file:
            assert file.read() == b"line\n" * 1000
        descriptor = int(path.rpartition("/")[2])
        assert not os.get_inheritable(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
