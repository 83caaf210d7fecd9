"""What the ways of deciding have in common: one kernel for everybody, a fleet file, somebody's HTTP service.

A Mode brings a decider and what it serves beside boot files; the composition root (app.py) opens everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bootwire.assets.catalog import Blob
from bootwire.boot_server import BootServer
from bootwire.policy.target import Decision, Image, Target, Traits
from bootwire.serve.content import Content, Later, Missing, Peer, Record, Reply, Upstream
from bootwire.serve.seals import Seals
from bootwire.serve.upstreams import Upstreams
from bootwire.wire.http import Request


class StartError(Exception):
    """Why the server cannot start, in lines for a person; status is the exit status (1 failed, 2 wrong usage)."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class RenderError(Exception):
    """A target's texts cannot be made for this machine; the text says why, and where to mend it."""


@dataclass(frozen=True, slots=True)
class Link:
    """Where this server gives things to one machine. base: "http://192.0.2.1:8080"; make: the URL of an image."""

    base: str
    make: Callable[[Image, str], str]

    def __call__(self, image: Image, name: str) -> str:
        """The URL of an image; name: what it is for ("kernel", "initrd/0")."""
        return self.make(image, name)


Room = Callable[[str, Request, Peer], Content | Missing | Reply | Upstream | Later]
"""Looks up a GET or HEAD below one first part of a path: the rest of the path, the request, who asks. Like an
HttpResolver it runs in the transfer loop and must not block longer than an open(2)."""

Settling = Callable[[str], Later | None]
"""The answer to a machine, by its MAC, until what was decided for it is kept; None once it is."""


def settled(machine: str) -> None:
    """A `Settling` for who keeps nothing."""


class Decider(Protocol):
    """Says what each machine boots.

    smbios  whether what only a machine's loader can tell (serial, manufacturer, product) can make a difference
    """

    @property
    def smbios(self) -> bool: ...

    def known(self, traits: Traits) -> Decision | None:
        """The decision as far as it is known without waiting, None where it must be asked for. Any thread."""

    async def ask(self, traits: Traits) -> None:
        """Find it out, in the control loop: afterwards `known` tells. Bounds its own time, raises nothing."""

    def render(self, target: Target, traits: Traits, link: Link) -> Target:
        """`target` with all its texts final. Any thread. Raises RenderError."""


@dataclass(frozen=True, slots=True)
class House:
    """What a Mode may use once the server runs.

    base        "http://192.0.2.1:8080" for one of our addresses
    decide      what a machine boots, boot states looked at
    phone_home  where a machine says that it is done, by its MAC and our base URL
    """

    control: asyncio.AbstractEventLoop
    record: Record
    boot_server: BootServer
    base: Callable[[str], str]
    decide: Callable[[Traits], Decision | None] | None = None
    phone_home: Callable[[str, str], str] | None = None


class Mode(Protocol):
    """One way of deciding.

    catalog   what /boot/<mac>/ and TFTP serve beside the loaders
    rooms     first parts of HTTP paths that it serves itself
    upstreams how other servers are asked for images
    seals     makes and opens tokens in URLs; None for a mode that gives the same to everybody
    multicast whether a menu of its has boot servers looked for by multicast
    lines     for the person who starts the server; warnings go to the journal
    """

    decider: Decider
    catalog: Mapping[str, Blob]
    rooms: Mapping[str, Room]
    upstreams: Upstreams
    seals: Seals | None
    multicast: bool
    lines: Sequence[str]
    warnings: Sequence[str]

    def link(self, machine: str, base: str) -> Link:
        """Where `machine` gets images from. Any thread."""

    def give(self, image: Image, name: str, machine: str) -> Content | Missing | Reply | Upstream | Later:
        """The octets of an image that was decided for a machine; name: what it is for. In the transfer loop."""

    def named(self, profile: str, traits: Traits) -> Target | None:
        """What a machine gets of a profile by its name; None where there is none of that name. Any thread."""

    def installing(self) -> Sequence[str]:
        """The names of the profiles that install: what a machine can be armed with. Any thread."""

    def open(self, house: House) -> None:
        """The server is about to run: start watching files, open sessions … In the control loop."""

    async def reload(self) -> None:
        """SIGHUP: look at the configuration again, if there is one. Raises nothing."""

    async def close(self) -> None:
        """The server ends."""


@dataclass(slots=True)
class Plain:
    """A decider whose decision is the same for everybody and needs no rendering."""

    target: Target
    smbios: bool = field(default=False, init=False)

    def known(self, traits: Traits) -> Decision:
        return self.target

    async def ask(self, traits: Traits) -> None:
        pass

    def render(self, target: Target, traits: Traits, link: Link) -> Target:
        return target
