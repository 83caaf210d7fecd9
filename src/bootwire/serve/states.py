"""Boot states around any mode: who is armed may install, who says it is done goes on with its disk. Kept on disk.

A `States` stands between the server and a mode's decider. What is in force is in memory, so that a decision waits for
no disk. What was changed for an HTTP request is on the disk before it is answered, and is read back at the next start:
whoever has been answered may rely on it even if we are killed now. (Bootinfo and TFTP answer at once.)
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from bootwire.facts import HandedOver, Record, StateChanged, Warned
from bootwire.policy import states as policy
from bootwire.policy.states import State
from bootwire.policy.target import Decision, Target, Traits
from bootwire.serve.content import Later, Missing, Peer, Reply
from bootwire.serve.content import Record as Tell
from bootwire.serve.mode import Decider, Link, Room
from bootwire.serve.seals import Seals
from bootwire.wire.http import Request

if TYPE_CHECKING:
    from bootwire.serve.store import Store

ROOM = "done"  # first part of the path that machines phone home to
WRITE_SECONDS = 5.0  # that somebody waits for the disk: who arms a machine, a machine for its script
LIFETIME = 7 * 86400.0  # seconds that a phone-home URL holds: the longest installation, and some

_TABLES = (
    """CREATE TABLE machine_states (
        machine TEXT PRIMARY KEY, phase TEXT NOT NULL, profile TEXT NOT NULL, tries INTEGER NOT NULL,
        until REAL NOT NULL, since REAL NOT NULL, serial INTEGER NOT NULL, because TEXT NOT NULL
    ) STRICT""",
    """ALTER TABLE machine_states ADD COLUMN unproved INTEGER NOT NULL DEFAULT 0;
    UPDATE machine_states SET unproved = tries""",
)
_COLUMNS = "machine, phase, profile, tries, until, since, serial, because, unproved"


class States:
    """A decider around another. Any thread.

    named    what a machine gets of a profile by its name, None where the mode has none of that name
    mac_at   which MAC an IPv4 address of our own links has, "" where that is not known
    """

    def __init__(
        self,
        inner: Decider,
        store: Store,
        seals: Seals,
        named: Callable[[str, Traits], Target | None] | None = None,
        record: Tell = lambda fact: None,
        wall: Callable[[], float] = time.time,
        mac_at: Callable[[str], str] = lambda address: "",
    ) -> None:
        self._inner = inner
        self._store = store
        self._seals = seals
        self._named = named
        self._record = record
        self._wall = wall
        self._mac_at = mac_at
        self._lock = threading.Lock()
        store.tables("states", _TABLES)
        rows = store.ask(f"SELECT {_COLUMNS} FROM machine_states")
        self._states: dict[str, State] = {row[0]: State(*row) for row in rows}
        self._hands_over: dict[str, bool] = {}  # of machines that were armed: is it done when its kernel is started
        self._writing: dict[str, Future[int]] = {}  # last changes, by machine: on the disk when they are done
        self._reported: dict[str, tuple[str, Peer]] = {}  # what counted and waits for the disk, and its sender
        self.rooms: Mapping[str, Room] = {ROOM: self.room}

    # --- a decider ------------------------------------------------------------------------------------------------

    @property
    def smbios(self) -> bool:
        return self._inner.smbios

    def known(self, traits: Traits) -> Decision | None:
        state = self.state(traits.machine)
        decision: Decision | None = None
        if state.may_install and state.profile and self._named is not None:
            decision = self._named(state.profile, traits)
        if decision is None:
            decision = self._inner.known(traits)
        return None if decision is None else policy.allowed(decision, state)

    async def ask(self, traits: Traits) -> None:
        await self._inner.ask(traits)

    def render(self, target: Target, traits: Traits, link: Link) -> Target:
        """The texts; a boot script that installs is a try. `phone_home` is where the installed system reports."""
        if target.variables.get("install") and self.state(traits.machine).may_install:
            refused = self._begin(target, traits)
            if refused:
                return self._inner.render(replace(target, kernel=None, local=True, because=refused), traits, link)
        variables = {**target.variables, "phone_home": self.home(traits.machine, link.base)}
        return self._inner.render(replace(target, variables=variables), traits, link)

    def _begin(self, target: Target, traits: Traits) -> str:
        """Account for a boot that installs; why it does not, or "".

        Whose try it is: the machine's where who asks has the address that DHCP gave it, or its MAC on our own link.
        """
        itself, refused = bool(traits.boot) or self._mac_at(traits.address) == traits.machine, ""

        def change(state: State, now: float) -> State:
            nonlocal refused
            if itself:
                return policy.began(state, now)
            found = policy.began_unproved(state, now, traits.unproved or "who asked is not known to be it")
            if isinstance(found, str):
                refused = found
                return policy.looked_at(state, now)
            return found

        state = self._change(traits.machine, change)
        if state.may_install and not refused:
            self._hands_over[traits.machine] = target.variables.get("done") == "hand-over"
        return refused if state.may_install else state.because

    def settling(self, machine: str) -> Later | None:
        """A `Settling`: until a machine's state is on the disk."""
        written = self._writing.get(machine)
        if written is None or written.done():
            return None

        async def kept() -> None:
            with contextlib.suppress(TimeoutError, sqlite3.Error):  # an error is told by `_kept`
                await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(written)), WRITE_SECONDS)
            with self._lock:
                if self._writing.get(machine) is written:  # nobody waits for this change any longer
                    del self._writing[machine]

        return Later(kept, machine)

    # --- what machines report -------------------------------------------------------------------------------------

    def home(self, machine: str, base: str) -> str:
        """The URL that says: this machine has finished what it is doing now. One use."""
        serial = self.state(machine).serial
        return f"{base}/{ROOM}/{self._seals.seal(ROOM, machine, (str(serial),), self._wall(), LIFETIME)}"

    def room(self, rest: str, request: Request, peer: Peer) -> Missing | Reply | Later:
        """GET or POST of a phone-home URL. Reporting twice is refused, and told."""
        token = rest.partition("/")[0]
        sealed = self._seals.open(ROOM, token, self._wall())
        if isinstance(sealed, str):
            return Missing(sealed, forbidden=True)
        machine, serial = sealed.machine, int(sealed.what[0])
        reply = Reply(200, b"done\n", machine=machine)
        if request.method == "HEAD":
            return reply
        if self._reported.get(machine) == (token, peer):  # it comes again because we said Later
            del self._reported[machine]
            return reply
        refused = self._report(machine, serial, f"it phoned home from {peer.address}")
        if refused:
            self._record(Warned(machine, f"a report from {peer.address} counts for nothing: {refused}"))
            return Missing(refused, machine, forbidden=True)
        later = self.settling(machine)
        if later is None:
            return reply
        self._reported[machine] = token, peer
        return later

    def note(self, record: Record) -> None:
        """Facts of the journal: a hand-over ends an installation whose profile says that it does."""
        if not isinstance(record.fact, HandedOver):
            return
        state = self.state(record.fact.machine)
        if state.phase == "installing" and self._ends_at_hand_over(state):
            self._report(state.machine, state.serial, "its kernel was started, which is all that its profile asks for")

    def _ends_at_hand_over(self, state: State) -> bool:
        """What its boot script was made of says so; its profile, where that was before the server's start."""
        if state.machine in self._hands_over:
            return self._hands_over[state.machine]
        target = self._named(state.profile, Traits(state.machine, stage="other")) if self._named else None
        return target is not None and target.variables.get("done") == "hand-over"

    def _report(self, machine: str, serial: int, how: str) -> str:
        """Why a report counts for nothing, or ""."""
        why = ""

        def change(state: State, now: float) -> State:
            nonlocal why
            state = policy.looked_at(state, now)
            found = policy.done(state, serial, now, how)
            if isinstance(found, str):
                why = found
                return state
            return found

        self._change(machine, change)
        return why

    # --- what operators do ----------------------------------------------------------------------------------------

    def state(self, machine: str) -> State:
        """Of one machine, now."""
        state = self._states.get(machine) or State(machine)
        return policy.looked_at(state, self._wall())

    def all(self) -> Sequence[State]:
        """Of all machines that ever were armed, by MAC."""
        return [policy.looked_at(state, self._wall()) for _, state in sorted(self._states.items())]

    def arm(self, machine: str, profile: str, tries: int = policy.TRIES, within: float = policy.WITHIN) -> State:
        """Raises ValueError: no such profile, one that does not install, or numbers that make no sense."""
        if profile and self._named is not None:
            target = self._named(profile, Traits(machine, stage="other"))
            if target is None:
                raise ValueError(f"no profile is called {profile!r}")
            if not target.variables.get("install"):
                raise ValueError(
                    f"profile {profile} does not install: give it install = true, or arm without a profile"
                )
        return self._change(machine, lambda state, now: policy.arm(state, profile, now, tries, within), wait=True)

    def disarm(self, machine: str) -> State:
        return self._change(machine, policy.disarm, wait=True)

    def _change(self, machine: str, change: Callable[[State, float], State], wait: bool = False) -> State:
        """One change at a time; `settling` tells when it is on the disk. wait: until it is there."""
        with self._lock:
            before = self._states.get(machine) or State(machine)
            state = change(before, self._wall())
            if state == before:
                return state
            self._states[machine] = state
            values = (
                machine, state.phase, state.profile, state.tries, state.until, state.since, state.serial, state.because,
                state.unproved,
            )  # fmt: skip
            sql = f"INSERT OR REPLACE INTO machine_states ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            written = self._store.do(lambda connection: connection.execute(sql, values).rowcount)
            self._writing[machine] = written
        written.add_done_callback(lambda future: self._kept(machine, future))
        if wait:
            with contextlib.suppress(TimeoutError, sqlite3.Error):
                written.result(WRITE_SECONDS)
        self._record(StateChanged(machine, state.phase, state.profile, state.tries, state.because))
        return state

    def _kept(self, machine: str, written: Future[int]) -> None:
        if (error := written.exception()) is not None:
            what = f"the state of {machine} cannot be kept ({error}): after a restart it is what it was before"
            self._record(Warned(machine, what, "mend the state directory"))
