"""Facts in a real systemd-journald, read back with journalctl. It runs in a mount namespace with a /run of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from boot_stories import booted, hostile, mac, records, refused
from bootwire import facts
from bootwire.facts import Record
from bootwire.serve.systemd import SystemdJournal
from good_client import GoodClient
from namespaces import Namespace, pair
from product import Server

pytestmark = pytest.mark.interop

PATIENCE = 20.0  # seconds
DAEMON = """
mount -t tmpfs none /run && mkdir -p /run/systemd/journal /run/log/journal
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\nRateLimitBurst=0\\nRuntimeMaxUse=64M\\n' >/run/conf
mount --bind /run/conf /etc/systemd/journald.conf
echo 0123456789abcdef0123456789abcdef >/run/id && mount --bind /run/id /etc/machine-id
exec /lib/systemd/systemd-journald
"""
AS_A_SERVICE = """
import os, socket, sys
out = socket.socket(socket.AF_UNIX)
out.connect("/run/systemd/journal/stdout")
out.sendall(b"bootwire\\nbootwire.service\\n6\\n1\\n0\\n0\\n0\\n")
status = os.fstat(out.fileno())
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
os.dup2(out.fileno(), 1)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Runs a command as systemd does with StandardOutput=journal (systemd.exec(5))."""


class Journald:
    """folder: its /run, as it is seen from outside; inside: a command that runs another beside it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", DAEMON], stderr=subprocess.PIPE
        )
        self.folder = Path(f"/proc/{self.process.pid}/root/run")
        self.inside = ("nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt")
        self.socket = self.folder / "systemd/journal/socket"
        until = time.monotonic() + PATIENCE
        while not self.socket.is_socket():
            assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.02)

    def read(self, *matches: str, count: int = 1) -> list[dict[str, Any]]:
        """Entries with these fields, the oldest first, once there are as many."""
        until = time.monotonic() + PATIENCE
        command = ["journalctl", f"--directory={self.folder}/log/journal", "--all", "--output=json", *matches]
        while True:
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = [json.loads(line) for line in said.splitlines()]
            if len(found) >= count:
                return found
            assert time.monotonic() < until, f"{len(found)} of {count}"
            time.sleep(0.05)

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def journald() -> Iterator[Journald]:
    made = Journald()
    yield made
    made.close()


def test_every_fact_is_an_entry_with_the_facts_own_fields(journald: Journald) -> None:
    told = [record.fact for record in records(booted(1)) + records(hostile(2)) + records(refused(3))]
    told.append(facts.Verdict(mac(4), 7, "stuck", "loader", "loader-refused", "it\nhangs", "try it", "", 1.5, 9))
    told.append(facts.Warned("", "half a \udc80 character, an ümlaut, \x1b[2J", "x" * 20_000))
    written = SystemdJournal(str(journald.socket), verbose=True)
    for fact in told:
        written.take(Record(0, 0, fact))
        while written.lost:  # nobody waits for a full socket but this test
            written.lost = 0
            time.sleep(0.05)
            written.take(Record(0, 0, fact))
    written.close()
    found = journald.read("SYSLOG_IDENTIFIER=bootwire", count=len(told))
    assert len(found) == len(told)
    for entry, fact in zip(found, told, strict=True):
        expected = {
            f"BOOTWIRE_{field.name.upper()}": str(getattr(fact, field.name)).encode("utf-8", "backslashreplace")
            for field in fields(fact)
            if getattr(fact, field.name) != ""
        }
        ours = {name: octets(value) for name, value in entry.items() if name.startswith("BOOTWIRE_")}
        assert ours == {**expected, "BOOTWIRE_KIND": fact.kind.encode()}
        assert entry["_TRANSPORT"] == "journal"


def octets(value: str | list[int]) -> bytes:
    """A field of journalctl's JSON: what is no printable UTF-8 comes as numbers."""
    return value.encode() if isinstance(value, str) else bytes(value)


def test_what_needs_a_person_is_found_as_the_guide_says(journald: Journald) -> None:
    written = SystemdJournal(str(journald.socket))
    for number, state in ((21, "stuck"), (22, "booted")):
        verdict = facts.Verdict(mac(number), number, state, "loader", "", "so it is", "", "", 1.5, 9)
        written.take(Record(0, 0, verdict))
    written.close()
    (booted_one,) = journald.read(f"BOOTWIRE_MACHINE={mac(22)}")
    assert (booted_one["PRIORITY"], booted_one["BOOTWIRE_STATE"]) == ("5", "booted")
    (stuck,) = journald.read(f"BOOTWIRE_MACHINE={mac(21)}", "BOOTWIRE_STATE=stuck", "--priority=warning")
    assert stuck["MESSAGE"] == f"{mac(21)}  verdict  stuck after loader: so it is"


@pytest.fixture
def cable() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as (one, two):
        yield one, two


def test_a_service_writes_entries_instead_of_lines(
    journald: Journald, cable: tuple[Namespace, Namespace], kernel: str, state: tuple[str, ...]
) -> None:
    one, two = cable
    within = (*journald.inside, sys.executable, "-c", AS_A_SERVICE)
    options = [option for option in state if option != "--json"]
    server = Server(one, kernel, *options, read=False, within=within)
    journald.read("BOOTWIRE_KIND=listening", "BOOTWIRE_SERVICE=tftp")

    def ask() -> None:
        with contextlib.closing(GoodClient("there")) as client:
            client.dhcp()

    two.call(ask)
    (offer, *_) = journald.read("BOOTWIRE_KIND=offer")
    assert offer["BOOTWIRE_MACHINE"] in offer["MESSAGE"]
    assert offer["_TRANSPORT"] == "journal"
    assert server.end()[0] == 0
    journald.read("BOOTWIRE_KIND=stopped")
    assert journald.read("_TRANSPORT=stdout", count=0) == [], "a line as well"
