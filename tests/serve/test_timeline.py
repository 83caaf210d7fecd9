"""The timeline of a running server: live, stored, searched, and there again after a restart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boot_stories import booted, mac, records, refused
from bootwire.facts import Fact, Record, Verdict
from bootwire.serve.store import Store
from bootwire.serve.timeline import Timeline


class Rig:
    """A timeline whose verdicts come back to it, as a journal brings them."""

    def __init__(self, folder: Path) -> None:
        self.told: list[Fact] = []
        self.store = Store(folder)
        self.timeline = Timeline(self.store, self.told.append)

    def take(self, story: list[Record]) -> None:
        for record in story:
            self.timeline.take(record)
            while len(self.told) > self._back:
                verdict = self.told[self._back]
                self._back += 1
                self.timeline.take(Record(record.wall, record.at, verdict))

    _back = 0

    def close(self) -> None:
        self.timeline.flush()
        self.store.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_a_boot_is_told_live_and_its_verdict_goes_to_the_journal(rig: Rig) -> None:
    rig.take(records(booted()))
    (line,) = rig.timeline.briefs()
    assert (line["boot"], line["machine"], line["state"], line["stage"]) == (1, mac(0), "booted", "alive")
    assert [fact.state for fact in rig.told if isinstance(fact, Verdict)] == ["booted"]


def test_changes_are_told_once(rig: Rig) -> None:
    rig.take(records(booted()))
    assert [line["boot"] for line in rig.timeline.changes()] == [1]
    assert rig.timeline.changes() == []


def test_silence_is_judged_as_time_passes(rig: Rig) -> None:
    rig.take(records(refused(), epoch=time.monotonic_ns() - 20 * 10**9))
    rig.timeline.tick()
    assert rig.timeline.briefs()[0]["state"] == "running"
    rig.take(records(refused(1), epoch=time.monotonic_ns() - 60 * 10**9))
    rig.timeline.tick()
    assert [(line["machine"], line["state"]) for line in rig.timeline.briefs()] == [
        (mac(0), "running"), (mac(1), "stuck")]  # fmt: skip


def test_after_a_restart_history_and_numbers_go_on(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    first.take(records(booted(1)) + records(booted(2), 100))
    whole = first.timeline.boot(2)
    first.close()
    second = Rig(tmp_path)
    assert second.timeline.boot(2) == whole
    second.take(records(booted(1), 5000))
    second.timeline.flush()
    assert [(line["boot"], line["machine"]) for line in second.timeline.history()] == [
        (3, mac(1)), (2, mac(2)), (1, mac(1))]  # fmt: skip
    assert (second.timeline.last_of(mac(1)), second.timeline.last_of(mac(1), 1)) == (3, 1)
    second.close()


def test_a_boot_the_server_did_not_see_the_end_of_is_judged_by_what_it_left(tmp_path: Path) -> None:
    first = Rig(tmp_path)
    first.take(records(refused()))
    first.close()
    second = Rig(tmp_path)
    second.timeline.flush()
    (line,) = second.timeline.history()
    assert (line["state"], line["because"]) == ("unknown", "the server was stopped meanwhile")
    whole = second.timeline.boot(1)
    assert whole
    assert whole["cause"] == "loader-refused"
    second.close()


def test_history_is_searched_by_words_and_paged(rig: Rig) -> None:
    for number in range(30):
        rig.take(records(booted(number), number * 100))
    rig.timeline.flush()
    assert len(rig.timeline.history(limit=10)) == 10
    assert [line["boot"] for line in rig.timeline.history(before=4)] == [3, 2, 1]
    assert [line["machine"] for line in rig.timeline.history("00:05 booted")] == [mac(5)]
    assert rig.timeline.history("100% _nothing_ \\ ' ; --") == []
    assert [line["machine"] for line in rig.timeline.history(machine=mac(7))] == [mac(7)]


def test_a_boot_nobody_knows_is_none(rig: Rig) -> None:
    assert rig.timeline.boot(99) is None
    assert rig.timeline.records(99) is None
    assert rig.timeline.last_of(mac(99)) is None
