"""The boots of a running server: folded from the journal, judged as time passes, kept in the store.

The journal's thread brings records, the control loop asks and judges; one lock between them, held for microseconds.
The store has every boot that ended, and those under way every few seconds, so that a restart loses next to nothing.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable

from bootwire.facts import Fact, Record
from bootwire.observe import jsonlines
from bootwire.observe.boots import KEPT, STAGES, Boot, Boots, fold
from bootwire.observe.story import Json, brief, whole
from bootwire.serve.content import Record as Journal
from bootwire.serve.store import Row, Store

TICK_SECONDS = 0.5
"""How often silence is judged: the shortest patience of a rule is a second."""

KEEP_SECONDS = 10.0
"""How often boots under way are stored: what a crash can cost of their story."""

HISTORY = 50_000
"""Boots in the store, the oldest forgotten first: a lab of 200 machines, 250 boots each; some 150 MB at most."""

_TABLES = (
    """
    CREATE TABLE boots (
        number INTEGER PRIMARY KEY, machine TEXT NOT NULL, started REAL NOT NULL, client TEXT NOT NULL,
        address TEXT NOT NULL, what TEXT NOT NULL, state TEXT NOT NULL, stage TEXT NOT NULL, cause TEXT NOT NULL,
        because TEXT NOT NULL, seconds REAL NOT NULL, octets INTEGER NOT NULL, facts BLOB NOT NULL
    );
    CREATE INDEX boots_of_a_machine ON boots (machine, number);
    """,
)
_COLUMNS = ("number", "machine", "started", "client", "address", "what", "state", "stage", "cause", "because",
            "seconds", "octets")  # fmt: skip
_PUT = f"INSERT OR REPLACE INTO boots ({', '.join(_COLUMNS)}, facts) VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})"


_INTERRUPTED = "the server was stopped meanwhile"


class Timeline:
    """What happened to which machine. `take` is for the journal's thread; the rest for any.

    reading  only what is stored is read, beside a server that may be writing it

    Raises sqlite3.Error at construction where the store's boots cannot be used.
    """

    def __init__(self, store: Store, record: Journal, *, reading: bool = False) -> None:
        store.tables("boots", _TABLES)
        self._store = store
        self._record = record
        if not reading:
            store.put("UPDATE boots SET state = 'unknown', because = ? WHERE state = 'running'", (_INTERRUPTED,))
        ((last,),) = store.ask("SELECT coalesce(max(number), 0) FROM boots")
        self._boots = Boots(first=last + 1)
        self._lock = threading.Lock()
        self._unstored: dict[int, Boot] = {}
        self._unshown: dict[int, None] = {}
        self._stored_at = 0.0

    def take(self, record: Record) -> None:
        """A record of the journal."""
        if not self._boots.knows(record.fact):
            return
        with self._lock:
            told = self._boots.take(record)
        self._tell(told)

    def tick(self) -> None:
        """Judge what is silent, and store what ended."""
        with self._lock:
            told = self._boots.tick(time.monotonic_ns())
        self._tell(told)
        self._keep(all_of_them=time.monotonic() - self._stored_at > KEEP_SECONDS)

    def progress(self, transfers: Iterable[tuple[str, str, str, int]]) -> None:
        """How far transfers are: (machine, protocol, name, octets)."""
        with self._lock:
            for machine, protocol, name, octets in transfers:
                self._boots.progress(machine, protocol, name, octets)

    def changes(self) -> list[Json]:
        """Each boot that changed since the last call, in one line. For one reader alone."""
        with self._lock:
            self._collect()
            shown = [brief(boot) for number in self._unshown if (boot := self._boots.numbered(number))]
            self._unshown.clear()
            return shown

    def briefs(self) -> list[Json]:
        """The last boot of each machine, in one line."""
        with self._lock:
            return [brief(boot) for boot in self._boots.machines()]

    def boot(self, number: int) -> Json | None:
        """All of one boot, None where there is none of that number."""
        with self._lock:
            boot = self._boots.numbered(number)
            if boot is not None:
                return whole(boot)
        stored = self._stored(number)
        return whole(stored) if stored else None

    def records(self, number: int) -> list[Record] | None:
        """The facts a boot was made of."""
        with self._lock:
            boot = self._boots.numbered(number)
            if boot is not None:
                return list(boot.records)
        stored = self._stored(number)
        return stored.records if stored else None

    def last_of(self, machine: str, back: int = 0) -> int | None:
        """The number of a machine's last boot; of the one `back` boots before that."""
        self.flush()
        found = self._store.ask(
            "SELECT number FROM boots WHERE machine = ? ORDER BY number DESC LIMIT 1 OFFSET ?", (machine, back)
        )
        return found[0][0] if found else None

    def history(self, words: str = "", before: int = 0, limit: int = 100, machine: str = "") -> list[Json]:
        """Boots, the newest first, in one line each: those that have each of `words` somewhere in theirs.

        before: only those with smaller numbers, 0 for all
        """
        clauses, values = ["1"], list[object]()
        if before:
            clauses.append("number < ?")
            values.append(before)
        if machine:
            clauses.append("machine = ?")
            values.append(machine)
        for word in words.split()[:8]:
            text = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            places = " || ' ' || ".join(("machine", "client", "address", "what", "state", "cause", "because"))
            clauses.append(f"{places} LIKE ? ESCAPE '\\'")
            values.append(f"%{text}%")
        rows = self._store.ask(
            f"SELECT {', '.join(_COLUMNS)} FROM boots WHERE {' AND '.join(clauses)} ORDER BY number DESC LIMIT ?",
            (*values, max(1, min(limit, 500))),
        )
        return [_line(row) for row in rows]

    def flush(self) -> None:
        """Have everything in the store that is known now, and wait for it."""
        self._keep(all_of_them=True)
        with contextlib.suppress(sqlite3.Error):
            self._store.do(lambda connection: None).result(5)

    # --- parts --------------------------------------------------------------------------------------------------

    def _tell(self, verdicts: Iterable[Fact]) -> None:
        for verdict in verdicts:
            self._record(verdict)

    def _collect(self) -> None:
        """Note what changed, for who shows it and for the store. At most as many as `Boots` remembers."""
        self._unshown.update(dict.fromkeys(self._boots.changed))
        self._unstored.update(self._boots.changed)
        self._boots.changed.clear()
        while len(self._unshown) > KEPT:
            del self._unshown[next(iter(self._unshown))]
        while len(self._unstored) > KEPT:
            del self._unstored[next(iter(self._unstored))]

    def _keep(self, *, all_of_them: bool) -> None:
        with self._lock:
            self._collect()
            due = [boot for boot in self._unstored.values() if all_of_them or boot.verdict or boot.over]
            for boot in due:
                del self._unstored[boot.number]
            rows = [(_row(boot), list(boot.records)) for boot in due]
        if all_of_them:
            self._stored_at = time.monotonic()
        if not rows:
            return

        def write(connection: sqlite3.Connection) -> None:
            for row, records in rows:
                connection.execute(_PUT, (*row, _packed(records)))
            connection.execute("DELETE FROM boots WHERE number <= ?", (rows[-1][0][0] - HISTORY,))

        self._store.do(write)

    def _stored(self, number: int) -> Boot | None:
        found = self._store.ask("SELECT facts FROM boots WHERE number = ?", (number,))
        if not found:
            return None
        with contextlib.suppress(ValueError, zlib.error):
            lines = zlib.decompress(found[0][0]).splitlines()
            boots = fold((jsonlines.parse(line) for line in lines), number)
            for boot in boots.all():
                boots.tick(boot.started + int((boot.last + 3600) * 1e9))  # of a server that was ended meanwhile
                return boot
        return None


def _row(boot: Boot) -> Row:
    line = brief(boot)
    return (boot.number, *(line[name] for name in _COLUMNS[1:]))


def _line(row: Row) -> Json:
    line = dict(zip(_COLUMNS, row, strict=True))
    step = STAGES.index(line["stage"]) + 1 if line["stage"] in STAGES else 0
    return {"boot": line.pop("number"), **line, "step": step, "steps": len(STAGES)}


def _packed(records: list[Record]) -> bytes:
    return zlib.compress("\n".join(map(jsonlines.line, records)).encode(), 3)
