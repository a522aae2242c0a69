"""Names and numbers of users and groups."""

import grp
import os
import pwd
from functools import partial
from types import SimpleNamespace

import pytest

from forkproxy.config.problems import ConfigError
from forkproxy.supervisor import identity
from forkproxy.supervisor.identity import first_closed, identity_for, identity_of
from forkproxy.worker.after_fork import Identity


def test_a_name_brings_all_its_groups():
    me = pwd.getpwuid(os.getuid())
    found = identity_of(me.pw_name)
    assert (found.uid, found.gid) == (me.pw_uid, me.pw_gid)
    assert me.pw_gid in found.groups
    assert identity_of(str(me.pw_uid)) == found


def test_a_group_of_its_own_is_the_only_one():
    me = pwd.getpwuid(os.getuid())
    group = grp.getgrall()[-1]
    assert identity_of(f"{me.pw_name}:{group.gr_name}").groups == (group.gr_gid,)
    assert identity_of(f"{me.pw_name}:{group.gr_gid}").gid == group.gr_gid


@pytest.mark.parametrize("text", ["no-such-user-here", "4294967000", "root:no-such-group-here"])
def test_who_is_not_there(text):
    with pytest.raises(ValueError, match=r"no (user|group)"):
        identity_of(text)


def bootstrap(user=None):
    return SimpleNamespace(forkproxy=SimpleNamespace(user=user))


def test_the_command_line_comes_before_the_file(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(identity, "identity_of", lambda name: Identity({"root": 0, "a": 1, "b": 2}[name], 5, ()))
    default = partial(Identity, 3, 5, ())
    assert identity_for(bootstrap("a"), "b").uid == 2
    assert identity_for(bootstrap("a")).uid == 1
    assert identity_for(bootstrap("a"), "root") is None
    assert identity_for(bootstrap("a"), default=default).uid == 1
    assert identity_for(bootstrap(), default=default).uid == 3
    assert identity_for(bootstrap()) is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert identity_for(bootstrap("a"), "b", default) is None


def test_a_user_who_is_not_there(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for arguments, where in [
        ((bootstrap("no-such-user"),), "forkproxy.user"),
        ((bootstrap(), "no-such-user"), "--user"),
    ]:
        with pytest.raises(ConfigError) as info:
            identity_for(*arguments)
        assert info.value.path == where


def test_by_default_the_first_user_there_is_who_can_read_the_program(monkeypatch, tmp_path):
    monkeypatch.setattr(identity, "may_change_user", lambda: True)
    monkeypatch.setattr(identity, "program_directories", lambda: [tmp_path])
    monkeypatch.setattr(identity, "first_closed", lambda _directories, _identity: None)
    monkeypatch.setattr(identity, "DEFAULT_USERS", ("no-such-user", "nobody"))
    assert identity.default_identity() == identity_of("nobody")
    monkeypatch.setattr(identity, "first_closed", lambda _directories, _identity: tmp_path)
    assert identity.default_identity() is None
    monkeypatch.setattr(identity, "may_change_user", lambda: False)
    assert identity.default_identity() is None


def test_the_directory_that_is_closed(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    me = Identity(os.geteuid(), os.getegid(), ())
    assert first_closed([inner], me) is None
    (tmp_path / "a").chmod(0o600)
    assert first_closed([inner.parent], me) == tmp_path / "a"
    (tmp_path / "a").chmod(0o710)
    status = (tmp_path / "a").stat()
    for step in (tmp_path, *tmp_path.parents):
        if not step.stat().st_mode & 0o001:
            break
    else:
        assert first_closed([inner], Identity(4321, 4321, ())) == tmp_path / "a"
        assert first_closed([inner], Identity(4321, status.st_gid, ())) is None
