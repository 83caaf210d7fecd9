"""bootinfo as a part of the server: the edge, the decisions behind it, and the door that orders come in by."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bootwire.engine import US, S
from bootwire.engine.bootinfo import ORDER_PATIENCE, Server
from bootwire.facts import Discovered, Record, Warned
from bootwire.serve.bootinfo import BootinfoEdge, Decisions
from bootwire.serve.content import Record as Tell
from bootwire.serve.control import Control, NotReached, ask
from bootwire.serve.interfaces import Interface
from bootwire.serve.mode import StartError
from bootwire.serve.neighbours import Neighbours
from bootwire.wire import bootinfo_keys
from bootwire.wire.bootinfo import Boot
from bootwire.wire.bootinfo_text import read, say
from bootwire.wire.text import printable


@dataclass(frozen=True, slots=True)
class BootinfoSettings:
    """What the operator chose.

    answer  what every machine is told, None: what follows from what it shall boot
    keys    identity -> key for seals; "*" is everybody's who has none of its own
    demand  tell machines without a seal nothing
    shared  the file of keys, if others may read it, else ""
    """

    answer: Boot | None = None
    keys: Mapping[str, bytes] = field(default_factory=dict)
    demand: bool = False
    shared: str = ""


def chosen(on: bool, answer: str | None, keys: str | None, demand: bool) -> BootinfoSettings | None:
    """What the options say; None where bootinfo was not asked for. keys: a file. Raises StartError (status 2)."""
    if not (on or answer is not None or keys is not None or demand):
        return None
    if demand and keys is None:
        raise StartError("--bootinfo-demand-keys needs keys\n  try  --bootinfo-keys FILE", 2)
    try:
        boot = None if answer is None else _answer(answer)
        held = {} if keys is None else bootinfo_keys.parse(_octets(keys), keys)
        shared = keys if keys is not None and os.stat(keys).st_mode & 0o077 else ""
        return BootinfoSettings(boot, held, demand, shared)
    except ValueError as error:
        raise StartError(str(error), 2) from None
    except OSError as error:
        raise StartError(f"cannot read {keys}: {error.strerror}", 2) from None


def _answer(text: str) -> Boot:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"--bootinfo-answer {text}: {error}") from None


def _octets(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(bootinfo_keys.LARGEST + 1)


class BootinfoService:
    """Serves from `open` to `close`; `open` again moves to other interfaces. Machines that wait are kept meanwhile.

    machine_at  the MAC at an address as DHCP told it, "" if it did not: then the kernel's table of neighbours is asked,
                since machines may have waited before this server was started
    state       the state directory, where the door for orders is
    """

    def __init__(
        self,
        settings: BootinfoSettings,
        decisions: Decisions,
        machine_at: Callable[[str], str],
        record: Tell,
        state: Path,
    ) -> None:
        epoch_us = (time.time_ns() - time.monotonic_ns()) // US
        self._server = Server(settings.keys, demand=settings.demand, epoch_us=epoch_us)
        self._decisions = decisions
        neighbours = Neighbours()
        self._machine_at = lambda address: machine_at(address) or neighbours.mac_at(address)
        self._record = record
        self._edge: BootinfoEdge | None = None
        self._control: Control | None = None
        self._state = state
        self._shared = settings.shared
        self._loop: asyncio.AbstractEventLoop

    def open(self, loop: asyncio.AbstractEventLoop, interfaces: Sequence[Interface]) -> None:
        """Raises PortInUse and OSError."""
        self._loop = loop
        if self._edge is not None:
            self._edge.close()
        self._edge = BootinfoEdge(self._server, interfaces, self._decisions, self._machine_at, self._record)
        self._edge.open(loop)

    async def open_door(self) -> None:
        """Take orders. Where that cannot be, a warning says so: machines are answered all the same."""
        if self._shared:
            self._record(Warned("", f"others may read the keys in {self._shared}", f"chmod 600 {self._shared}"))
        control = Control(self._state, {"order": self._order, "waiting": self._waiting})
        try:
            await control.open()
        except OSError as error:
            what = f"`bootwire order` will not reach this server: {error.strerror or error} ({self._state})"
            self._record(Warned("", what, "give this server a --state-dir of its own"))
        else:
            self._control = control

    async def close(self) -> None:
        if self._control is not None:
            await self._control.close()
        if self._edge is not None:
            self._edge.close()

    def note(self, record: Record) -> None:
        """Take a fact of the journal, in any thread: a machine that starts a boot waits no more."""
        fact = record.fact
        if isinstance(fact, Discovered) and fact.machine and self._edge is not None:
            self._loop.call_soon_threadsafe(self._edge.seen_starting, fact.machine)

    # --- orders -------------------------------------------------------------------------------------------------

    async def _order(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """{"machine": MAC, address, identity or "all", "action": TEXT} -> {"results": [one for each machine]}"""
        assert self._edge is not None
        boot, target = read(str(question.get("action"))), str(question.get("machine"))
        targets = [target]
        if target == "all":
            targets = [one.address for one in self._edge.waiting()]
            if not targets:
                raise ValueError("no machine waits for an order")
        ended = await asyncio.gather(*(self._edge.order(each, boot) for each in targets))
        results: list[dict[str, Any]] = []
        for each, result in zip(targets, ended, strict=True):
            if isinstance(result, str):
                results.append({"machine": printable(each), "address": "", "taken": False, "how": result})
            else:
                machine = result.machine or result.address
                results.append(
                    {"machine": machine, "address": result.address, "taken": result.taken, "how": result.how}
                )
        return {"order": say(boot), "results": results}

    async def _waiting(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._edge is not None
        return {"waiting": [dataclasses.asdict(one) for one in self._edge.waiting()]}


# --- `bootwire order` ---------------------------------------------------------------------------------------------


def run_order(say_line: Callable[[str], None], state: Path, machine: str, action: str, line: str, as_json: bool) -> int:
    """Send an order through the server with this state directory. Status 0: every machine took it. StartError."""
    if not machine or not action:
        raise StartError("name a machine and an action\n  try  bootwire order --list, bootwire order all auto", 2)
    text = f"{action} -- {line}" if line else action
    try:
        read(text)
    except ValueError as error:
        raise StartError(str(error), 2) from None
    target = machine.lower() if machine.count(":") == 5 else machine  # a MAC; names of keys keep their case
    answer = _ask(state, {"do": "order", "machine": target, "action": text})
    results = answer["results"]
    if as_json:
        say_line(json.dumps(answer))
    else:
        for one in results:
            where = f" ({one['address']})" if one["address"] not in ("", one["machine"]) else ""
            taken = "taken" if one["taken"] else "no sign that it was taken" if one["address"] else "not sent"
            say_line(f"{one['machine']}{where}  {answer['order']}  {taken}: {one['how']}")
    return 0 if all(one["taken"] for one in results) else 1


def run_list(say_line: Callable[[str], None], state: Path, as_json: bool) -> int:
    """Say which machines wait. Status 0. StartError."""
    answer = _ask(state, {"do": "waiting"})
    if as_json:
        say_line(json.dumps(answer))
        return 0
    for one in answer["waiting"]:
        asked = f"asked {one['seconds']} s ago" + (", silent" if one["silent"] else "")
        say_line(f"{one['machine'] or '-':<17}  {one['address']:<15}  {asked}  {one['because']}")
    if not answer["waiting"]:
        say_line("no machine waits")
    return 0


def _ask(state: Path, question: Mapping[str, Any]) -> dict[str, Any]:
    try:
        answer = ask(state, question, 3 * ORDER_PATIENCE / S)
    except NotReached as error:
        raise StartError(f"{error.what}\n  try  {error.fix}") from None
    if "error" in answer:
        raise StartError(str(answer["error"]))
    return answer
