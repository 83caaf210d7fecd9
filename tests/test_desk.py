"""What a person looks at, wired: where the page is, and what is done without when something is in the way."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boot_stories import booted, mac, records
from bootwire.desk import WEB, Desk, where
from bootwire.facts import Fact, Listening, Warned
from bootwire.serve.journal import Journal
from bootwire.serve.mode import StartError


@pytest.mark.parametrize(("text", "found"), [
    ("127.0.0.1:8067", ("127.0.0.1", 8067)), ("8068", ("127.0.0.1", 8068)), ("0.0.0.0:80", ("0.0.0.0", 80)),
    ("[::1]:8067", ("::1", 8067)), (":8067", ("127.0.0.1", 8067)), ("off", None),
])  # fmt: skip
def test_where_the_page_is(text: str, found: tuple[str, int] | None) -> None:
    assert where(text) == found


@pytest.mark.parametrize("text", ["", "host:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "on"])
def test_where_it_cannot_be_is_told(text: str) -> None:
    with pytest.raises(StartError, match="--web takes ADDRESS:PORT or off") as told:
        where(text)
    assert told.value.status == 2


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield f"127.0.0.1:{made.getsockname()[1]}"


def facts_of(folder: Path, web: str | None) -> list[Fact]:
    """What the journal hears while a desk opens and closes."""
    heard: list[Fact] = []

    async def run() -> None:
        journal = Journal()
        journal.subscribe(lambda record: heard.append(record.fact))
        desk = Desk(journal, folder, web)

        async def progress() -> list[tuple[str, str, str, int]]:
            return []

        try:
            await desk.open(progress)
        finally:
            journal.start()
            await desk.close()
            journal.close()
            desk.finish()

    asyncio.run(run())
    return heard


def warnings(folder: Path, web: str | None) -> list[str]:
    return [fact.what for fact in facts_of(folder, web) if isinstance(fact, Warned)]


def test_it_says_where_it_listens(tmp_path: Path) -> None:
    (listening,) = facts_of(tmp_path, "127.0.0.1:0")
    assert isinstance(listening, Listening)
    assert (listening.service, listening.address) == ("web", "127.0.0.1")


def test_without_the_page_there_is_nothing_to_listen_on(tmp_path: Path) -> None:
    assert facts_of(tmp_path, "off") == []


def test_a_port_that_was_chosen_and_is_taken_ends_the_start(tmp_path: Path, taken: str) -> None:
    with pytest.raises(StartError, match=r"TCP port \d+ is taken by"):
        facts_of(tmp_path, taken)


def test_the_usual_port_is_done_without_where_it_is_taken(
    tmp_path: Path, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootwire.desk.WEB", taken)
    (told,) = warnings(tmp_path, None)
    assert "is taken by" in told
    assert told.endswith("; there is no page")
    assert WEB == "127.0.0.1:8067"


def test_a_history_that_cannot_be_used_is_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "bootwire.db").write_bytes(b"rubbish" * 1000)
    (told,) = warnings(tmp_path, "off")
    assert "file is not a database" in told
    assert told.endswith("it is kept in memory and lost at the end")
    assert (tmp_path / "bootwire.db").read_bytes() == b"rubbish" * 1000


def test_traces_that_are_asked_for_and_cannot_be_had_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    (told,) = warnings(tmp_path, "off")
    assert told.startswith("traces are asked for in the environment")


def test_a_boot_at_the_very_end_is_stored(tmp_path: Path) -> None:
    async def run() -> None:
        journal = Journal()
        desk = Desk(journal, tmp_path, "off")
        for record in records(booted(1)):
            desk.timeline.take(record)
        desk.finish()

    asyncio.run(run())

    async def again() -> int | None:
        desk = Desk(Journal(), tmp_path, "off")
        found = desk.timeline.last_of(mac(1))
        desk.finish()
        return found

    assert asyncio.run(again()) == 1
