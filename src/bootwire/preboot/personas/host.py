"""An ordinary host: an operating system's DHCP client, which does not boot from the network."""

from __future__ import annotations

from collections.abc import Sequence

from bootwire.engine import Ns
from bootwire.engine import dhcp_client as dhcp
from bootwire.preboot.personas.steps import Machine, Persona, Stopped, agreed, lease
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Options

REQUESTED = bytes((1, 28, 2, 3, 15, 6, 119, 12, 44, 47, 26, 121, 42))  # ISC dhclient.conf of Debian


def boot(machine: Machine, _build: object = None) -> Persona:
    """An address, as dhclient gets one; then the host goes its own way."""
    leased = yield from lease(machine, dhcp.Client(rules(restarts=5), machine.mac, machine.xid))
    if isinstance(leased, dhcp.Failed):
        return Stopped("", "No DHCPOFFERS received.")
    return Stopped("", f"bound to {leased.address}")


def rules(restarts: int | None = None) -> dhcp.Rules:
    """RFC 2131 as it is written, renewals included; the waits without their random second."""
    return dhcp.Rules(options=options, choose=choose, renews=True, restarts=restarts)


def options(ask: dhcp.Ask) -> Options:
    """What dhclient sends on Debian."""
    return (
        (dhcp4.MESSAGE_TYPE, bytes((ask.kind,))),
        *agreed(ask),
        (dhcp4.HOST_NAME, b"host"),
        (dhcp4.REQUEST_LIST, REQUESTED),
    )


def choose(heard: Sequence[dhcp.Heard], _elapsed: Ns) -> dhcp.Choice | None:
    """The first offer of an address."""
    offers = [one for one in heard if one.message.type == dhcp4.OFFER and one.message.yiaddr != dhcp.ANY]
    return dhcp.Choice(offers[0]) if offers else None
