"""The management API's part that changes something: who may install; and what there is to boot machines with.

Behind the same guard as the pages (web/access.py): a change needs the token in its header.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from aiohttp import web

from bootwire.policy.states import TRIES, WITHIN, State

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Arming(Protocol):
    """What the API does (`serve.states.States`). Any thread."""

    def all(self) -> Sequence[State]: ...
    def state(self, machine: str) -> State: ...
    def arm(self, machine: str, profile: str, tries: int, within: float) -> State: ...
    def disarm(self, machine: str) -> State: ...


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an arming. within: seconds."""

    profile: str = ""
    tries: int = TRIES
    within: float = WITHIN


class Manage:
    """GET /api/arming, /api/states, /api/states/MAC, /api/assets, /api/inventory; POST /api/states/MAC/arm, …/disarm.

    states     None where nothing can be armed (static mode)
    profiles   the names of those that install
    assets     the boot loader files at hand
    inventory  what machines reported of themselves
    """

    def __init__(
        self,
        states: Arming | None,
        profiles: Callable[[], Sequence[str]],
        assets: Callable[[], list[Json]],
        inventory: Callable[[], list[Json]],
    ) -> None:
        self._states = states
        self._profiles = profiles
        self._assets = assets
        self._inventory = inventory

    def add_to(self, application: web.Application) -> None:
        application.router.add_get("/api/arming", self._arming)
        application.router.add_get("/api/states", self._all)
        application.router.add_get("/api/states/{machine}", self._one)
        application.router.add_post("/api/states/{machine}/arm", self._arm)
        application.router.add_post("/api/states/{machine}/disarm", self._disarm)
        application.router.add_get("/api/assets", self._list)
        application.router.add_get("/api/inventory", self._reported)

    async def _arming(self, _: web.Request) -> web.Response:
        """Whether anything can be armed here, with what, and what holds unless it is said."""
        possible = self._states is not None
        profiles = list(self._profiles()) if possible else []
        return _answer({"possible": possible, "profiles": profiles, "tries": TRIES, "within": WITHIN})

    async def _all(self, _: web.Request) -> web.Response:
        return _answer([dataclasses.asdict(state) for state in self._states.all()] if self._states else [])

    async def _one(self, request: web.Request) -> web.Response:
        return _answer(dataclasses.asdict(self._found().state(_machine(request))))

    async def _arm(self, request: web.Request) -> web.Response:
        states, machine = self._found(), _machine(request)
        try:
            body = await request.read()
            order = msgspec.json.decode(body or b"{}", type=Order)
            state = await asyncio.to_thread(states.arm, machine, order.profile, order.tries, order.within)
        except (msgspec.MsgspecError, ValueError) as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        return _answer(dataclasses.asdict(state))

    async def _disarm(self, request: web.Request) -> web.Response:
        states, machine = self._found(), _machine(request)
        return _answer(dataclasses.asdict(await asyncio.to_thread(states.disarm, machine)))

    async def _list(self, _: web.Request) -> web.Response:
        return _answer(self._assets())

    async def _reported(self, _: web.Request) -> web.Response:
        return _answer(await asyncio.to_thread(self._inventory))

    def _found(self) -> Arming:
        if self._states is None:
            raise web.HTTPConflict(text="nothing can be armed here: every machine gets the same (static mode)\n")
        return self._states


def _machine(request: web.Request) -> str:
    machine = request.match_info["machine"].lower().replace("-", ":")
    if not _MAC.fullmatch(machine):
        raise web.HTTPBadRequest(text=f"{machine[:40]!r} is no MAC address\n")
    return machine


def _answer(value: object) -> web.Response:
    return web.Response(body=_encode(value), content_type="application/json")
