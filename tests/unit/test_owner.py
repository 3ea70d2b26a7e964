"""Who made what can outlive its maker."""

from __future__ import annotations

import os

import pytest

from tidings_coordinator.launchers.namespaces import Namespaces, free_subnet, key_of
from tidings_coordinator.launchers.owner import Owner

pytestmark = pytest.mark.unit


def test_an_owner_is_written_and_read() -> None:
    me = Owner.me()
    read = Owner.parse(me.text("quick-start-0123abcd"))
    assert read == Owner(os.getpid(), me.began, "quick-start-0123abcd")
    assert Owner.parse("somebody else's") is None


def test_a_number_that_was_given_out_again_is_not_the_owner() -> None:
    me = Owner.me()
    assert me.alive
    assert not Owner(me.pid, me.began - 1).alive
    assert not Owner(1 << 22, me.began).alive


def test_addresses_are_distinct_and_inside() -> None:
    space = Namespaces("quick-start-0123abcd", free_subnet(5))
    addresses = {space.gateway, *(space.address(node) for node in range(5))}
    assert len(addresses) == 6
    assert str(space.subnet.broadcast_address) not in addresses
    assert space.subnet.num_addresses == 8
    assert key_of(space.run) == "0123abcd"
    # what the kernel allows as the name of a device
    assert len(space.device(65535)) <= 15
    assert len(space.bridge) <= 15
