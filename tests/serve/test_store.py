"""The store: what is written is there, together or not at all, and nobody waits who need not."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.serve.store import CAPACITY, FILE, Store

THINGS = ("CREATE TABLE things (name TEXT PRIMARY KEY, size INTEGER)",)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "state")
    made.tables("things", THINGS)
    yield made
    made.close()


def test_what_is_put_is_read_and_is_there_after_a_restart(tmp_path: Path, store: Store) -> None:
    store.put("INSERT INTO things VALUES (?, ?)", ("a", 1))
    store.do(lambda connection: None).result(5)
    assert store.ask("SELECT * FROM things") == [("a", 1)]
    store.close()
    again = Store(tmp_path / "state")
    again.tables("things", THINGS)
    assert again.ask("SELECT * FROM things") == [("a", 1)]
    again.close()


def test_the_file_is_the_owners_alone(tmp_path: Path, store: Store) -> None:
    assert stat.S_IMODE((tmp_path / "state" / FILE).stat().st_mode) == 0o600


def test_a_mistake_undoes_itself_and_nothing_else(store: Store) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things VALUES ('half', 0)")
        raise LookupError("changed my mind")

    before = store.do(lambda connection: connection.execute("INSERT INTO things VALUES ('before', 0)"))
    broken = store.do(half)
    after = store.do(lambda connection: connection.execute("INSERT INTO things VALUES ('after', 0)"))
    before.result(5)
    after.result(5)
    with pytest.raises(LookupError, match="changed my mind"):
        broken.result(5)
    assert store.ask("SELECT name FROM things ORDER BY name") == [("after",), ("before",)]


def test_work_is_done_alone_so_that_counting_up_from_many_threads_counts(store: Store) -> None:
    store.put("INSERT INTO things VALUES ('n', 0)")

    def one_more(connection: sqlite3.Connection) -> int:
        ((size,),) = connection.execute("SELECT size FROM things WHERE name = 'n'").fetchall()
        connection.execute("UPDATE things SET size = ? WHERE name = 'n'", (size + 1,))
        return int(size) + 1

    threads = [threading.Thread(target=lambda: [store.do(one_more).result(10) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.ask("SELECT size FROM things") == [(200,)]


def test_tables_are_brought_up_to_date_step_by_step(tmp_path: Path) -> None:
    steps = (*THINGS, "ALTER TABLE things ADD COLUMN colour TEXT DEFAULT 'blue'; CREATE INDEX sizes ON things (size);")
    first = Store(tmp_path)
    first.tables("things", steps[:1])
    first.put("INSERT INTO things VALUES ('a', 1)")
    first.close()
    second = Store(tmp_path)
    second.tables("things", steps)
    second.tables("things", steps)
    assert second.ask("SELECT * FROM things") == [("a", 1, "blue")]
    second.close()


def test_tables_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.tables("things", (*THINGS, "CREATE TABLE more (x)"))
    with pytest.raises(sqlite3.DatabaseError, match="newer version"):
        store.tables("things", THINGS)
    store.close()


def test_in_memory_it_is_the_same_without_a_file(tmp_path: Path) -> None:
    store = Store(None)
    store.tables("things", THINGS)
    store.put("INSERT INTO things VALUES ('a', 1)")
    store.do(lambda connection: None).result(5)
    assert store.ask("SELECT name FROM things") == [("a",)]
    store.close()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Store(tmp_path)


def test_writes_that_wait_are_bounded_and_counted(store: Store) -> None:
    begun, go = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> bool:
        begun.set()
        return go.wait(20)

    held = store.do(hold)
    assert begun.wait(5)
    for number in range(CAPACITY + 100):
        store.put("INSERT OR REPLACE INTO things VALUES ('a', ?)", (number,))
    with pytest.raises(sqlite3.OperationalError, match="too many writes"):
        store.do(lambda connection: None).result(5)
    assert store.lost == 100
    go.set()
    assert held.result(20)


def test_a_write_that_cannot_be_is_counted_and_the_next_one_is_done(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put("INSERT INTO nowhere VALUES (1)")
    store.put("INSERT INTO things VALUES ('a', 1)")
    store.do(lambda connection: None).result(5)
    assert (store.lost, store.ask("SELECT name FROM things")) == (1, [("a",)])
    assert "no such table" in capsys.readouterr().err


def test_in_memory_who_reads_holds_no_writer_up() -> None:
    store = Store(None)
    store.tables("notes", ("CREATE TABLE notes (text TEXT)",))
    store.do(lambda connection: connection.executemany("INSERT INTO notes VALUES (?)", [("a",), ("b",)])).result()
    reading = store._reader.execute("SELECT text FROM notes")
    assert reading.fetchone() == ("a",)
    store.do(lambda connection: connection.execute("INSERT INTO notes VALUES ('c')")).result()
    assert store.ask("SELECT count(*) FROM notes") == [(3,)]
    store.close()
