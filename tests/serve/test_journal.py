"""The journal: facts from any thread, lines for any reader, and a server that never waits."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from bootwire.facts import ConsoleSaid, Fact, Record, Stopped, Warned
from bootwire.serve.journal import Journal

F_SETPIPE_SZ = 1031  # linux/fcntl.h


class Pipe:
    """A pipe of 4,096 octets, so that it is soon full."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        fcntl.fcntl(self.write, F_SETPIPE_SZ, 4096)

    def drain(self) -> list[str]:
        """Everything until the write end is closed everywhere."""
        with open(self.read, encoding="utf-8") as stream:
            return stream.read().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for fd in (made.read, made.write):
        with contextlib.suppress(OSError):
            os.close(fd)


def said(number: int) -> Fact:
    return ConsoleSaid("52:54:00:12:34:56", "10.0.0.9", f"line {number}")


def test_facts_come_out_as_prose_in_order(pipe: Pipe) -> None:
    journal = Journal(pipe.write, verbose=True)
    journal.start()
    for number in range(5):
        journal.record(said(number))
    journal.close()
    os.close(pipe.write)
    assert [line.rsplit("  ", 1)[1] for line in pipe.drain()] == [f"line {n}" for n in range(5)]


def test_without_v_only_milestones_are_printed_but_subscribers_get_all(pipe: Pipe) -> None:
    got: list[Record] = []
    journal = Journal(pipe.write)
    journal.subscribe(got.append)
    journal.start()
    journal.record(said(1))
    journal.record(Stopped("", "Ctrl-C"))
    journal.close()
    os.close(pipe.write)
    assert [record.fact for record in got] == [said(1), Stopped("", "Ctrl-C")]
    assert [line.split()[2] for line in pipe.drain()] == ["stop"]


def test_json_lines_are_complete(pipe: Pipe) -> None:
    journal = Journal(pipe.write, json=True)
    journal.record(said(1))  # before start
    journal.start()
    journal.close()
    os.close(pipe.write)
    (line,) = pipe.drain()
    assert json.loads(line) | {"time": 0} == {
        "v": 1, "time": 0, "kind": "console", "machine": "52:54:00:12:34:56", "peer": "10.0.0.9", "text": "line 1",
    }  # fmt: skip


def test_a_fact_left_unmade_is_the_same_to_everybody(pipe: Pipe) -> None:
    got: list[Record] = []
    for take, json_lines in ((got.append, True), (None, True), (None, False)):
        journal = Journal(pipe.write, json=json_lines, verbose=True)
        if take:
            journal.subscribe(take)
        journal.record_made(ConsoleSaid, "52:54:00:12:34:56", "10.0.0.9", "line 1")
        journal.start()
        journal.close()
    os.close(pipe.write)
    first, second, prose = pipe.drain()
    assert [record.fact for record in got] == [said(1)]
    assert json.loads(first) == got[0].as_dict()
    assert json.loads(second) | {"time": 0} == got[0].as_dict() | {"time": 0}
    assert prose.endswith("line 1")


def test_a_fact_is_stamped_when_it_is_recorded_not_when_it_is_written() -> None:
    got: list[Record] = []
    journal = Journal()
    journal.subscribe(got.append)
    before = time.monotonic_ns()
    journal.record(said(1))
    after = time.monotonic_ns()
    journal.start()
    journal.close()
    assert before <= got[0].at <= after


def test_a_reader_who_stopped_holds_nobody_up_and_hears_how_much_is_missing(pipe: Pipe) -> None:
    heard = threading.Event()
    count = 0

    def take(record: Record) -> None:
        nonlocal count
        count += 1
        if record.fact == Stopped("", "last"):
            heard.set()

    journal = Journal(pipe.write, verbose=True, capacity=1000)
    journal.subscribe(take)
    journal.start()
    sent = 0
    while not journal.unwritten:  # nobody reads: 4,096 octets and 1,000 facts later something must be dropped
        journal.record(said(sent))
        sent += 1
        if sent % 500 == 0:
            time.sleep(0.001)  # lets the journal's thread have the interpreter
    journal.record(Stopped("", "last"))
    assert heard.wait(10), "subscribers wait for a reader who does not read"

    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(pipe.drain()))
    reader.start()
    journal.close(10)
    lost = journal.unwritten
    os.close(pipe.write)
    reader.join(10)
    missing = sum(int(line.split("  ")[-1].split()[0]) for line in lines if "are missing above" in line)
    assert missing == lost
    facts = [line for line in lines if "are missing above" not in line]
    assert len(facts) + lost == count


def test_a_closed_pipe_does_not_stop_the_journal_and_its_subscribers_hear_of_it_once(pipe: Pipe) -> None:
    got: list[Fact] = []
    told = threading.Event()

    def take(record: Record) -> None:
        got.append(record.fact)
        if isinstance(record.fact, Warned):
            told.set()

    journal = Journal(pipe.write, verbose=True)
    journal.subscribe(take)
    os.close(pipe.read)
    journal.start()
    journal.record(said(1))
    assert told.wait(10)
    for number in range(2, 100):
        journal.record(said(number))
    journal.close()
    assert sum(isinstance(fact, Warned) for fact in got) == 1
    assert [fact for fact in got if isinstance(fact, ConsoleSaid)] == [said(n) for n in range(1, 100)]
    assert journal.unwritten >= 99


def test_a_full_disk_is_tried_again_later() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    journal = Journal(full, verbose=True)
    journal.start()
    journal.record(said(1))
    journal.close()
    os.close(full)
    assert journal.unwritten == 1


def test_a_non_blocking_output_gets_every_line(pipe: Pipe) -> None:
    os.set_blocking(pipe.write, False)
    journal = Journal(pipe.write, verbose=True)
    journal.start()
    for number in range(1000):
        journal.record(said(number))
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(pipe.drain()))
    reader.start()
    journal.close(10)
    os.close(pipe.write)
    reader.join(10)
    assert [line.rsplit("  ", 1)[1] for line in lines] == [f"line {n}" for n in range(1000)]


def test_more_facts_than_the_journal_can_take_are_counted() -> None:
    got: list[Fact] = []
    journal = Journal(capacity=10)
    journal.subscribe(lambda record: got.append(record.fact))
    for number in range(24):
        journal.record(said(number))
    journal.record_made(Stopped, "", "too late")
    journal.start()
    journal.close()
    assert got[:10] == [said(n) for n in range(10)]
    (warning,) = got[10:]
    assert isinstance(warning, Warned)
    assert warning.what.startswith("15 facts were not recorded")


def test_a_subscriber_that_fails_does_not_harm_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    got: list[Record] = []

    def broken(record: Record) -> None:
        raise RuntimeError("broken on purpose")

    journal = Journal()
    journal.subscribe(broken)
    journal.subscribe(got.append)
    journal.start()
    journal.record(said(1))
    journal.close()
    assert len(got) == 1
    assert "broken on purpose" in capsys.readouterr().err


def test_facts_of_many_threads_all_arrive() -> None:
    got: list[Record] = []
    journal = Journal()
    journal.subscribe(got.append)
    journal.start()
    threads = [threading.Thread(target=lambda: [journal.record(said(n)) for n in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert len(got) == 4000


@pytest.mark.parametrize(("environment", "colour"), [
    ({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True),
])  # fmt: skip
def test_a_pipe_has_no_colour_unless_forced(
    pipe: Pipe, environment: dict[str, str], colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    _print_warning(pipe.write)
    os.close(pipe.write)
    assert ("\x1b[" in "".join(pipe.drain())) is colour


@pytest.mark.parametrize(("environment", "colour"), [
    ({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False),
])  # fmt: skip
def test_a_terminal_has_colour_unless_unwanted(
    environment: dict[str, str], colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    keeper, terminal = os.openpty()
    _print_warning(terminal)
    shown = os.read(keeper, 4096)
    os.close(keeper)
    os.close(terminal)
    assert (b"\x1b[" in shown) is colour


def test_recording_is_cheap() -> None:
    """A bound with room for a busy machine: 1 to 2 microseconds are usual; a lock or a system call would be 10."""
    journal = Journal(capacity=200_000)
    fact = said(1)
    best = min(_microseconds(journal, fact) for _ in range(5))
    assert best < 10, f"{best} microseconds, on {sys.implementation.name}"


def _microseconds(journal: Journal, fact: Fact) -> float:
    record, began = journal.record, time.perf_counter()
    for _ in range(10_000):
        record(fact)
    return (time.perf_counter() - began) * 100


def _print_warning(fd: int) -> None:
    journal = Journal(fd)
    journal.record(Warned("", "mind the gap"))
    journal.start()
    journal.close()


def test_a_process_ends_though_nobody_reads_its_lines(pipe: Pipe) -> None:
    program = (
        "from bootwire.facts import Stopped; from bootwire.serve.journal import Journal\n"
        "journal = Journal(1); journal.start()\n"
        "for number in range(5_000): journal.record(Stopped('', str(number)))\n"
        "journal.close(0.2)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], stdout=pipe.write, env=environment, timeout=20, check=True)
