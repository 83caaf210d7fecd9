"""What outlives the process: one SQLite file in the state directory, one thread that writes it.

Every part that keeps something brings its own tables (`tables`) and never touches another's. Writes are queued and
committed in batches, so that a storm of facts costs a few transactions a second and nobody waits for a disk; whoever
must know that something is on the disk waits for the future that `do` gives. Reads have a connection of their own and
see what was committed (WAL: readers and the writer do not hold each other up).
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from bootwire.serve.loop import print_error, work_behind_others

FILE = "bootwire.db"

CAPACITY = 8_192
"""Writes that wait: with `put`, more are dropped and counted; with `do`, more are refused."""

BATCH = 512
"""Writes of one transaction."""

CACHE_KIB = 512  # of the file's pages, for the writer and for the reader each

BUSY_MS = 5_000  # how long another process's transaction is waited for

T = TypeVar("T")
Row = tuple[Any, ...]
Work = tuple[Callable[[sqlite3.Connection], Any], "Future[Any] | None"]


class Store:
    """Opens at construction; `close` writes what is queued.

    folder  the state directory, made if it is missing; None keeps everything in memory, for as long as we run
    Raises OSError where the folder cannot be used, sqlite3.Error where the file is none of ours or broken.
    """

    def __init__(self, folder: Path | None) -> None:
        self.lost = 0
        """Writes that found no room (`put`), or failed."""
        if folder is None:
            self.path = f"file:bootwire-{id(self)}?mode=memory&cache=shared"
        else:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / FILE
            os.close(os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))  # it holds who booted what
            self.path = file.absolute().as_uri()
        self._reader = self._connect()
        self._reader.execute("PRAGMA read_uncommitted = ON")  # in memory, where a reader's lock would fail the writer
        self._reading = threading.Lock()
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        try:
            self._reader.execute("CREATE TABLE IF NOT EXISTS parts (name TEXT PRIMARY KEY, version INTEGER NOT NULL)")
            self._reader.commit()
        except sqlite3.Error:
            self._reader.close()
            raise
        self._thread.start()

    def tables(self, part: str, steps: Sequence[str]) -> None:
        """Bring a part's tables up to date. Waits for it; raises sqlite3.Error.

        steps: SQL scripts, oldest first; each is run once in a store's life. Add to the end, never change one.
        A store that is ahead of us (a newer version wrote it) is refused.
        """

        def bring(connection: sqlite3.Connection) -> None:
            found = connection.execute("SELECT version FROM parts WHERE name = ?", (part,)).fetchone()
            version = found[0] if found else 0
            if version > len(steps):
                raise sqlite3.DatabaseError(f"{part} were written by a newer version of bootwire")
            for step in steps[version:]:
                for statement in _statements(step):
                    connection.execute(statement)
            connection.execute("INSERT OR REPLACE INTO parts VALUES (?, ?)", (part, len(steps)))

        self.do(bring).result()

    def put(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Write when there is time. Never waits, never raises: what finds no room is counted in `lost`."""
        if self._queue.qsize() >= CAPACITY:
            self.lost += 1
            return
        values = tuple(parameters)
        self._queue.put((lambda connection: connection.execute(sql, values), None))

    def do(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Have `work` done by the writer, alone: what it reads nobody changes meanwhile. Any thread.

        The future is done once it is committed; an exception in `work` undoes what it did, nothing else, and is the
        future's. `asyncio.wrap_future` makes it one to await.
        """
        future: Future[T] = Future()
        if self._queue.qsize() >= CAPACITY:
            future.set_exception(sqlite3.OperationalError("too many writes wait for the disk"))
        else:
            self._queue.put((work, future))
        return future

    def ask(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Read what is committed. Any thread; keep it short where a loop waits for it."""
        with self._reading:
            return self._reader.execute(sql, tuple(parameters)).fetchall()

    def close(self, patience: float = 10.0) -> None:
        """Write what is queued, and let go of the file."""
        self._queue.put(None)
        self._thread.join(patience)
        with self._reading:
            self._reader.close()

    # --- the writer's thread ------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        made = sqlite3.connect(self.path, uri=True, check_same_thread=False, timeout=BUSY_MS / 1000)
        try:
            made.execute("PRAGMA journal_mode = WAL")
            made.execute("PRAGMA synchronous = NORMAL")  # after a power cut the last moments are missing, no more
            made.execute("PRAGMA foreign_keys = ON")
            made.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            made.commit()
        except sqlite3.Error:
            made.close()
            raise
        return made

    def _run(self) -> None:
        work_behind_others()
        with contextlib.closing(self._connect()) as connection:
            connection.isolation_level = None  # we say where transactions begin and end
            ended = False
            while not ended:
                batch = [self._queue.get()]
                with contextlib.suppress(queue.Empty):
                    while len(batch) < BATCH and batch[-1] is not None:
                        batch.append(self._queue.get_nowait())
                ended = batch[-1] is None
                self._write(connection, [work for work in batch if work is not None])

    def _write(self, connection: sqlite3.Connection, batch: list[Work]) -> None:
        if not batch:
            return
        done: list[tuple[Future[Any], Any]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for work, future in batch:
                connection.execute("SAVEPOINT one")
                try:
                    result = work(connection)
                except Exception as error:
                    connection.execute("ROLLBACK TO one")
                    self._failed(future, error)
                else:
                    if future is not None:
                        done.append((future, result))
                connection.execute("RELEASE one")
            connection.execute("COMMIT")
        except sqlite3.Error as error:  # a full disk, a file that went away: nothing of this batch is kept
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            self.lost += len(batch)
            for _, future in batch:
                if future is not None and not future.done():
                    future.set_exception(error)
            if not any(future for _, future in batch):
                print_error(error)
            return
        for future, result in done:
            future.set_result(result)

    def _failed(self, future: Future[Any] | None, error: Exception) -> None:
        if future is not None:
            future.set_exception(error)
        else:
            self.lost += 1
            print_error(error)


def _statements(script: str) -> list[str]:
    """A script's statements one by one: sqlite3's own executescript would commit in the middle of a batch."""
    found: list[str] = []
    piece = ""
    for part in script.split(";"):
        piece += part + ";"
        if sqlite3.complete_statement(piece):
            if piece.strip(" \n;"):
                found.append(piece.strip())
            piece = ""
    return found
