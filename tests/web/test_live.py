"""Live views: everything first, then what changes, within a moment; slow readers are let go of."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boot_stories import booted, mac, refused
from bootwire import facts
from bootwire.web.live import LOG
from web_site import Running, running


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as made:
        yield made


def events(site: Running) -> Iterator[tuple[str, Any]]:
    with urllib.request.urlopen(f"{site.url}/api/live", timeout=10) as stream:
        name = ""
        for line in stream:
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])


def facts_of(story: list[tuple[float, facts.Fact]]) -> list[facts.Fact]:
    return [fact for _, fact in story]


def test_a_reader_gets_everything_first_and_then_changes_within_a_second(site: Running) -> None:
    site.tell(facts_of(booted(1)))
    heard = events(site)
    assert next(heard)[0] == "all"
    began = time.monotonic()
    site.tell(facts_of(booted(2)))
    for name, data in heard:
        if name == "boots" and any(line["machine"] == mac(2) and line["state"] == "booted" for line in data):
            break
    assert time.monotonic() - began < 1


def test_a_late_reader_sees_what_was_before(site: Running) -> None:
    states, steps = {mac(1): "booted", mac(2): "running"}, ["discover", "offer"]
    early = events(site)
    site.tell(facts_of(booted(1)) + facts_of(refused(2)))
    until, known, told = time.monotonic() + 10, {}, []
    while known != states or told[:2] != steps:
        name, data = next(early)
        all_of = data if name == "all" else {name: data}
        known |= {line["machine"]: line["state"] for line in all_of.get("boots", ())}
        told += [line["step"] for line in all_of.get("log", ()) if line["machine"] == mac(2)]
        assert time.monotonic() < until, (known, told)
    name, data = next(events(site))
    assert name == "all"
    assert {line["machine"]: line["state"] for line in data["boots"]} == states
    assert [line["step"] for line in data["log"] if line["machine"] == mac(2)][:2] == steps


def test_progress_of_a_transfer_comes_without_a_fact(site: Running) -> None:
    site.tell(facts_of(booted(1)[:14]))
    heard = events(site)
    next(heard)
    site.underway = [(mac(1), "http", "initrd/0", 12_345)]
    for name, data in heard:
        if name == "boots" and data[0]["running"] and data[0]["running"]["octets"] == 12_345:
            assert data[0]["running"]["size"] == 40_700_000
            break


def test_a_reader_who_does_not_read_is_let_go_of_and_the_others_are_served(site: Running) -> None:
    idle = socket.create_connection(("127.0.0.1", site.port))
    idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    idle.sendall(b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    heard = events(site)
    next(heard)
    text = "x" * 900
    until = time.monotonic() + 60
    number = 0
    while dropped(site) == 0:
        assert time.monotonic() < until, "the reader who does not read was kept"
        for _ in range(1_500):
            number += 1
            site.record(facts.Warned("", f"{number} {text}"))
        next(heard)
    site.tell(facts_of(booted(5)))
    assert any(name == "boots" and data[0]["machine"] == mac(5) for name, data in heard)
    idle.close()


def dropped(site: Running) -> int:
    with urllib.request.urlopen(f"{site.url}/metrics", timeout=10) as response:
        line = next(line for line in response if line.startswith(b'bootwire_lost_total{where="page"}'))
    return int(float(line.split()[1]))


def test_the_log_is_bounded(site: Running) -> None:
    for number in range(3 * LOG):
        site.record(facts.Warned("", str(number)))
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with urllib.request.urlopen(f"{site.url}/api/log", timeout=10) as response:
            lines = json.load(response)
        if lines and lines[-1]["text"] == str(3 * LOG - 1):
            break
    assert len(lines) == LOG


def test_a_boot_is_there_as_json_and_as_lines_that_make_the_same_boot(site: Running) -> None:
    site.tell(facts_of(booted(1)))
    until = time.monotonic() + 10
    whole: dict[str, Any] = {"facts": []}
    while "verdict" not in [fact["kind"] for fact in whole["facts"]]:  # it comes back through the journal
        assert time.monotonic() < until
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{site.url}/api/boots/1") as response:
            whole = json.load(response)
    with urllib.request.urlopen(f"{site.url}/api/boots/1/facts.jsonl", timeout=10) as response:
        assert response.headers["Content-Disposition"] == 'attachment; filename="boot-1.jsonl"'
        written = [json.loads(line) for line in response]
    assert [fact["kind"] for fact in written] == [fact["kind"] for fact in whole["facts"]]
    assert {bar["label"] for bar in whole["bars"]} == {
        "DHCP", "address", "port 4011", "x86_64/snponly.efi", "autoexec.ipxe", "boot.ipxe", "kernel", "initrd/0",
        "kernel starts"}  # fmt: skip
