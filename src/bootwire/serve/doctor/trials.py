"""A machine of each firmware on the wire, from power-on to its end, over a card of our own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from bootwire.observe import explain, names
from bootwire.preboot.online import Card, Online
from bootwire.preboot.personas import steps
from bootwire.preboot.power_on import Player
from bootwire.serve.doctor import programs
from bootwire.serve.doctor.seen import Trial
from bootwire.wire import pcap
from bootwire.wire.text import printable

_CHUNK = 1 << 16
_URLS = 64  # of one trial
_LONGEST = 120.0  # seconds: twice what EDK2 asks DHCP for; a script that tries again shows nothing new after that


class _EnoughError(Exception):
    """The machine tries the same again and again."""


def trial(card: Card, firmware: str) -> Trial:
    """From power-on to its end, with all that passed. OSError: the card."""
    screen: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        record = Path(card.pcap or Path(directory, "boot.pcap"))
        began = time.monotonic()
        with Online(replace(card, bare=True, address="", pcap=str(record)), threaded=True) as online:
            mac = online.stack.nic.mac.hex(":")

            def show(line: str) -> None:
                screen.append(line)
                if time.monotonic() - began > _LONGEST:
                    raise _EnoughError

            player = Player(online.stack, show)
            try:
                outcome = player.run(firmware)
            except _EnoughError:
                outcome = steps.Stopped("", f"it still tries after {_LONGEST:.0f} s")
        seconds = time.monotonic() - began
        with record.open("rb") as file:
            capture = explain.gathered(pcap.read(iter(lambda: file.read(_CHUNK), b"")))
    capture.ended = max(capture.ended, capture.began + int(seconds * 1e9))
    ends, well = _ends(outcome)
    sources = [(url, player.files[digest]) for url, digest in player.sources]
    urls = tuple(dict.fromkeys(_urls(outcome, sources, player.asked)))[:_URLS]
    begun = programs.started(firmware, sources)
    return Trial(firmware, mac, ends, well, seconds, tuple(screen[-8:]), capture, begun, urls)


def _ends(outcome: steps.Outcome) -> tuple[str, bool]:
    match outcome:
        case steps.Booted(kernel, initrds, cmdline):
            with_ = f", {len(initrds)} initrd{'' if len(initrds) == 1 else 's'}" if initrds else ""
            line = f": {printable(cmdline, 120)}" if cmdline else ""
            return f"boots {printable(kernel.url or kernel.name, 200)} ({kernel.octets:,} octets){with_}{line}", True
        case steps.Started(program):
            return f"starts {printable(program.name, 200)} ({program.octets:,} octets)", True
        case _:
            return f"stops: {printable(str(outcome), 300)}", False


def _urls(
    outcome: steps.Outcome, sources: list[tuple[str, bytes]], asked: Iterable[str]
) -> Iterator[tuple[str, str, bool]]:
    """What was asked for over HTTP, and what scripts name: (what for, URL, whether it came)."""
    kernel = outcome.kernel.url if isinstance(outcome, steps.Booted) else ""
    initrds = [one.url for one in outcome.initrds] if isinstance(outcome, steps.Booted) else []
    for url, data in sources:
        if url.startswith(("http://", "https://")):
            role = "kernel" if url == kernel else "initrd" if url in initrds else programs.role_of(url, data)
            if role:  # others are signs of life, or modules of a loader that runs
                yield role, url, True
    fetched = {url for url, _ in sources}
    yield from (
        (programs.role_of(url, b""), url, False) for url in asked if url not in fetched and not names.optional(url)
    )
    for url, data in sources:
        for role, target in programs.scripted(url, data):
            if target not in fetched and not names.optional(target):
                yield role, target, False
