"""Names and numbers of users and groups."""

import grp
import os
import pwd

import pytest

from forkproxy.supervisor.identity import identity_of


def test_a_name_brings_all_its_groups():
    me = pwd.getpwuid(os.getuid())
    identity = identity_of(me.pw_name)
    assert (identity.uid, identity.gid) == (me.pw_uid, me.pw_gid)
    assert me.pw_gid in identity.groups
    assert identity_of(str(me.pw_uid)) == identity


def test_a_group_of_its_own_is_the_only_one():
    me = pwd.getpwuid(os.getuid())
    group = grp.getgrall()[-1]
    assert identity_of(f"{me.pw_name}:{group.gr_name}").groups == (group.gr_gid,)
    assert identity_of(f"{me.pw_name}:{group.gr_gid}").gid == group.gr_gid


@pytest.mark.parametrize("text", ["no-such-user-here", "4294967000", "root:no-such-group-here"])
def test_who_is_not_there(text):
    with pytest.raises(ValueError, match=r"no (user|group)"):
        identity_of(text)
