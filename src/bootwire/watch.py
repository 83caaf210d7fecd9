"""`bootwire watch`: what happens, live in a terminal, from a running server's page or from JSON lines.

One model, whatever brings it: every machine's last boot in one line (`observe.story.brief`). The view is drawn anew
four times a second and fits 80 columns; on anything but a terminal it is a line for each change instead. All text goes
through `printable`, since JSON lines may come from anybody.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import sys
import termios
import textwrap
import threading
import time
import tty
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from bootwire.observe import jsonlines
from bootwire.observe.boots import Boots
from bootwire.observe.prose import octets_text
from bootwire.observe.story import brief, whole
from bootwire.wire.text import printable

EVERY: float = 0.25
"""Seconds between two pictures."""

WAITING = 1_024
"""Events that wait to be shown; who brings them waits then."""

Json = dict[str, Any]
Event = tuple[str, Any]
SIGNS = {"running": "▸", "booted": "✓", "stuck": "✕", "silent": "?", "declined": "–", "unknown": "·"}
COLOURS = {"running": "blue", "booted": "green", "stuck": "red", "silent": "yellow", "declined": "bright_black"}
_ORDER = {"stuck": 0, "silent": 0, "running": 1, "booted": 2}
_BAR = 10  # characters of a progress bar


class WatchError(Exception):
    """Why there is nothing to watch, in lines for a person."""


# --- where it comes from ----------------------------------------------------------------------------------------


class Page:
    """The live view of a running server. url: "http://127.0.0.1:8067"; token: "" where none is needed."""

    def __init__(self, url: str, token: str = "") -> None:
        self.name = url
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def events(self) -> Iterator[Event]:
        """`all`, then `boots` and `now`; `lost` whenever the server cannot be heard. Raises WatchError at first."""
        first = True
        while True:
            try:
                with self._open("/api/live", 15) as stream:
                    first = False
                    yield from _server_sent(stream)
            except (OSError, ValueError) as error:
                if first:
                    raise WatchError(_why(error, self._url)) from None
            yield "lost", None
            time.sleep(1)

    def boot(self, number: int) -> Json | None:
        """All of one boot."""
        with contextlib.suppress(OSError, ValueError), self._open(f"/api/boots/{number}", 5) as answer:
            found: Json = json.load(answer)
            return found
        return None

    def _open(self, path: str, seconds: float) -> Any:
        return urllib.request.urlopen(urllib.request.Request(self._url + path, headers=self._headers), timeout=seconds)


class Lines:
    """JSON lines of a server (`bootwire boot … --json`), from a file or as they come."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self.name = name
        self._stream = stream
        self._boots = Boots(stored=True)
        self._lock = threading.Lock()

    def events(self) -> Iterator[Event]:
        """`boots` for whatever changed, `end` when there is nothing more. Lines that are no facts are left out."""
        last = 0
        for line in self._stream:
            with self._lock:
                with contextlib.suppress(ValueError):
                    record = jsonlines.parse(line)
                    last = record.at
                    self._boots.take(record)
                    self._boots.tick(record.at)
                changed = [brief(boot) for boot in self._boots.changed.values()]
                self._boots.changed.clear()
            if changed:
                yield "boots", changed
        with self._lock:
            self._boots.tick(last + 3_600 * 10**9)  # nothing more will be heard of those that were under way
            changed = [brief(boot) for boot in self._boots.changed.values()]
        self._stream.close()
        yield "boots", changed
        yield "end", None

    def boot(self, number: int) -> Json | None:
        """All of one boot."""
        with self._lock:
            found = self._boots.numbered(number)
            return whole(found) if found else None


def _server_sent(stream: IO[bytes]) -> Iterator[Event]:
    name = ""
    for line in stream:
        if line.startswith(b"event: "):
            name = line[7:].decode("utf-8", "replace").strip()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


def _why(error: Exception, url: str) -> str:
    if isinstance(error, urllib.error.HTTPError):
        with error:
            if error.code == 401:
                return f"{url} wants the token\n  try  --token-file FILE, a copy of the server's web-token"
            return f"{url} answers {error.code}: is that a bootwire page?"
    reason = getattr(error, "reason", error)
    return (
        f"no server answers at {url}: {getattr(reason, 'strerror', None) or reason}\n"
        "  try  bootwire watch FILE.jsonl, or start a server first: sudo bootwire boot …"
    )


Source = Page | Lines


# --- what is known ----------------------------------------------------------------------------------------------


@dataclass
class Model:
    """What the view shows. chosen: the machine the cursor is on; opened: the boot that is shown whole."""

    name: str = ""
    boots: dict[str, Json] = field(default_factory=dict)
    ahead: float = 0.0  # the server's clock less ours, seconds
    state: Literal["", "lost", "end"] = ""
    chosen: str = ""
    words: str = ""
    typing: bool = False
    opened: Json | None = None
    speeds: dict[str, tuple[float, int, float]] = field(default_factory=dict)  # machine -> when, octets, octets/s

    def take(self, event: Event, now: float) -> None:
        """An event of a source. now: seconds, Unix time."""
        what, data = event
        if what in ("lost", "end"):
            self.state = "end" if what == "end" else "lost"
            return
        self.state = "" if self.state == "lost" else self.state
        if what == "all":
            self.boots.clear()
            self.ahead = data["now"]["wall"] - now
            self._put(data["boots"], now)
        elif what == "boots":
            self._put(data, now)
        elif what == "now":
            self.ahead = data["wall"] - now

    def _put(self, boots: list[Json], now: float) -> None:
        for boot in boots:
            before = self.boots.get(boot["machine"])
            if before is None or before["boot"] <= boot["boot"]:
                self.boots[boot["machine"]] = boot
                self._measure(boot, now)

    def _measure(self, boot: Json, now: float) -> None:
        machine, running = boot["machine"], boot["running"]
        octets = boot["octets"] + (running["octets"] if running else 0)
        when, before, speed = self.speeds.get(machine, (now, octets, 0.0))
        if not running:
            self.speeds.pop(machine, None)
        elif now - when >= 0.5:
            self.speeds[machine] = (now, octets, (octets - before) / (now - when))
        elif machine not in self.speeds:
            self.speeds[machine] = (now, octets, speed)

    def shown(self) -> list[Json]:
        """What fits the filter: what needs a person first, then what runs, the newest first."""
        words = self.words.lower().split()
        fit = [boot for boot in self.boots.values() if all(word in _text(boot) for word in words)]
        return sorted(fit, key=lambda boot: (_ORDER.get(boot["state"], 3), -boot["boot"]))

    def key(self, key: str, whole_of: Callable[[int], Json | None]) -> bool:
        """A key was pressed; False to quit."""
        if self.typing:
            if key in ("enter", "escape"):
                self.typing = False
                self.words = self.words if key == "enter" else ""
            elif key == "back":
                self.words = self.words[:-1]
            elif len(key) == 1:
                self.words += key
            return True
        if key in ("q", "end"):
            return False
        if self.opened is not None:
            if key in ("escape", "left", "back", "enter"):
                self.opened = None
            return True
        rows = self.shown()
        machines = [boot["machine"] for boot in rows]
        at = machines.index(self.chosen) if self.chosen in machines else 0
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -15, "page-down": 15}
        if key in steps and machines:
            self.chosen = machines[max(0, min(len(machines) - 1, at + steps[key]))]
        elif key in ("enter", "right") and machines:
            self.chosen = machines[at]
            self.opened = whole_of(rows[at]["boot"])
        elif key == "/":
            self.typing, self.words = True, ""
        elif key == "escape":
            self.words = ""
        return True


def _doing(boot: Json) -> str:
    return f"fetches {boot['running']['name']}" if boot["running"] else str(boot["now"])


def _text(boot: Json) -> str:
    names = ("machine", "address", "client", "state", "stage", "cause", "because", "what")
    return " ".join(str(boot.get(name, "")) for name in names).lower()


# --- what it looks like -----------------------------------------------------------------------------------------


def draw(model: Model, width: int, height: int, now: float) -> RenderableType:
    """The picture, at most `height` lines of `width` characters."""
    if model.opened is not None:
        return Group(*_whole(model.opened, width, height))
    rows = model.shown()
    machines = [boot["machine"] for boot in rows]
    at = machines.index(model.chosen) if model.chosen in machines else 0
    room = max(1, height - 7)
    first = max(0, min(at - room // 2, len(rows) - room))
    heads = Text(_columns("", "MACHINE", "STAGE", "NOW", "TIME"), style="bright_black")
    lines = [_head(model, width), _cut(heads, width)]
    for index, boot in enumerate(rows[first : first + room], first):
        line = _row(boot, model, width, now)
        if index == at:
            line.stylize("reverse")
        lines.append(line)
    if not rows:
        lines.append(Text("  no machine fits" if model.boots else "  no machine has asked yet", style="bright_black"))
    lines += [Text("")] * (room + 2 - len(lines))
    return Group(*lines, *_about(rows[at] if rows else None, width), _foot(model, len(rows), width))


def _columns(state: str, machine: str, stage: str, doing: str, took: str) -> str:
    return f"{state:<10} {machine:<17} {stage:<9} {doing:<31} {took:>7}"


def _head(model: Model, width: int) -> Text:
    head = Text(" Bootwire ", style="bold")
    for state in ("running", "booted", "stuck", "silent"):
        count = sum(boot["state"] == state for boot in model.boots.values())
        head.append(f"  {SIGNS[state]} {count} {state}", style=COLOURS[state] if count else "bright_black")
    speed = sum(speed for _, _, speed in model.speeds.values())
    tail = f"{octets_text(int(speed))}/s" if speed else {"lost": "not connected", "end": "ended"}.get(model.state, "")
    head.append(f"{tail:>{max(1, width - head.cell_len)}}")
    return _cut(head, width)


def _row(boot: Json, model: Model, width: int, now: float) -> Text:
    state, running = boot["state"], boot["running"]
    took = now + model.ahead - boot["started"] if state == "running" and not model.state else boot["seconds"]
    if state == "running" and running and running["size"] > 0:
        share = min(1.0, running["octets"] / running["size"])
        speed = model.speeds.get(boot["machine"], (0, 0, 0.0))[2]
        full = round(share * _BAR)
        doing = f"{'█' * full}{'░' * (_BAR - full)} {share:4.0%} {octets_text(int(speed)) + '/s' if speed else '':>9}"
    else:
        doing = boot["cause"] or _doing(boot)
    stage = boot["stage"] or "seen"
    text = _columns(
        f"{SIGNS.get(state, '·')} {state}", boot["machine"], stage, printable(doing, 31), _seconds(max(0.0, took))
    )
    line = Text(printable(text, 4 * width))
    line.stylize(COLOURS.get(state, ""), 0, 10)
    return _cut(line, width)


def _about(boot: Json | None, width: int) -> list[Text]:
    """Three lines about the machine that the cursor is on."""
    if boot is None:
        return [Text("─" * width, style="bright_black"), Text(""), Text(""), Text("")]
    who = "  ".join(printable(boot[name], 60) for name in ("address", "client", "what") if boot[name])
    why = boot["because"] or _doing(boot)
    fix = f"To fix: {boot['fix']}" if boot["fix"] else ""
    found = [Text("─" * width, style="bright_black"), Text(who, style="bold")]
    found += [Text(printable(why, 4 * width), style=COLOURS.get(boot["state"], "")), Text(printable(fix, 4 * width))]
    return [_cut(line, width) for line in found]


def _foot(model: Model, count: int, width: int) -> Text:
    if model.typing:
        return _cut(Text(f"/{printable(model.words)}▏  Enter keeps the filter, Esc drops it"), width)
    words = f"  filter: {printable(model.words)}" if model.words else ""
    keys = "↑↓ choose  Enter open  / filter  q quit"
    return _cut(Text(f"{keys}{words}{f'{count} of {len(model.boots)}':>{max(1, width - len(keys + words))}}",
                     style="bright_black"), width)  # fmt: skip


def _whole(boot: Json, width: int, height: int) -> list[Text]:
    """One boot: verdict, waterfall, exchange."""
    style = COLOURS.get(boot["state"], "")
    lines = [Text(f" Boot {boot['boot']} of {boot['machine']}  {boot['address']}  {boot['client']}", style="bold")]
    became = f" {SIGNS.get(boot['state'], '·')} {boot['state']}: {boot['because'] or boot['now']}"
    lines += _folded(became, 3, width, style)
    for number, fix in enumerate(boot["fix"].split("; "), 1):
        lines += _folded(f"   {number}. {fix}", 6, width) if fix else []
    if boot["screen"]:
        lines += _folded(f"   its screen shows: {boot['screen']}", 5, width, "bright_black")
    lines.append(Text(""))
    lines += _waterfall(boot, width)
    lines.append(Text(""))
    for rung in boot["ladder"]:
        arrow = {"machine": "▸", "bootwire": "◂"}.get(rung["from"], "·") if rung["from"] != rung["to"] else "·"
        text = f" {rung['at']:8.2f} {arrow} {rung['step']:<9} {rung['text']}"
        lines.append(Text(text, style="red" if rung["bad"] else ""))
    shown = lines[: height - 1]
    clean = [_cut(Text(printable(line.plain, 4 * width), style=line.style), width) for line in shown]
    clean += [Text("")] * (height - 1 - len(clean))
    return [*clean, Text("Esc back  q quit", style="bright_black")]


def _waterfall(boot: Json, width: int) -> list[Text]:
    """A bar a line: what took which time."""
    bars = boot["bars"]
    end = max([bar["ended"] or bar["began"] for bar in bars] + [boot["last"] if boot["state"] == "running" else 0.05])
    room = max(10, width - 20 - 10)
    lines = []
    for bar in bars:
        until = end if bar["ended"] is None else bar["ended"]
        start = int(bar["began"] / end * room)
        length = max(1, round((until - bar["began"]) / end * room))
        took = "failed" if bar["failed"] else _seconds(until - bar["began"]) if until > bar["began"] else ""
        start = min(start, room - 1)
        drawn = f" {printable(bar['label'], 18):<18} {' ' * start}{'█' * min(length, room - start)} {took}"
        lines.append(Text(drawn, style="red" if bar["failed"] else "cyan"))
    return lines


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds // 60)}:{int(seconds % 60):02} m"


def _folded(text: str, indent: int, width: int, style: str = "") -> list[Text]:
    """A sentence in as many lines as it takes, four at most."""
    lines = textwrap.wrap(
        printable(text, 4 * width), width, subsequent_indent=" " * indent, max_lines=4, placeholder=" …"
    )
    return [Text(line, style=style) for line in lines]


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line


# --- running it -------------------------------------------------------------------------------------------------


def open_source(where: str, token_file: str = "") -> Source:
    """A page's URL, a file of JSON lines, "-" for standard input. Raises WatchError."""
    if where.startswith(("http://", "https://")):
        try:
            return Page(where, Path(token_file).read_text().strip() if token_file else "")
        except OSError as error:
            raise WatchError(f"cannot read {token_file}: {error.strerror}") from None
    if where == "-":
        return Lines(sys.stdin.buffer, "standard input")
    try:
        return Lines(open(where, "rb"), where)
    except OSError as error:
        raise WatchError(f"cannot read {where}: {error.strerror}") from None


def run(source: Source, *, once: bool = False) -> int:
    """Watch until q, Ctrl-C or, without a terminal, the end. Returns the exit status; raises WatchError.

    once: one line for each machine, as they are now, and the end
    """
    events: queue.Queue[Event | WatchError] = queue.Queue(WAITING)

    def bring() -> None:
        try:
            for event in source.events():
                events.put(event)
        except WatchError as error:
            events.put(error)

    threading.Thread(target=bring, name="watch", daemon=True).start()
    model = Model(source.name)
    first = events.get()
    if isinstance(first, WatchError):
        raise first
    model.take(first, time.time())
    if once:
        _until_known(model, events, source)
        for boot in model.shown():
            print(_plain(boot))
        if not model.boots:
            print("no machine has asked yet")
        return 0
    if not sys.stdout.isatty():
        return _follow(model, events)
    with _keys() as keys:
        return _live(model, events, source, keys)


def _until_known(model: Model, events: queue.Queue[Event | WatchError], source: Source) -> None:
    """Of JSON lines all that there are; a page has told everything first."""
    while isinstance(source, Lines) and model.state != "end":
        event = events.get()
        if not isinstance(event, WatchError):
            model.take(event, time.time())


def _follow(model: Model, events: queue.Queue[Event | WatchError]) -> int:
    """A line for each change of a machine's state or stage."""
    told: dict[str, tuple[int, str, str]] = {}
    while True:
        for boot in model.boots.values():
            now = (boot["boot"], boot["state"], boot["stage"])
            if told.get(boot["machine"]) != now:
                told[boot["machine"]] = now
                print(_plain(boot), flush=True)
        if model.state == "end":
            return 0
        event = events.get()
        if not isinstance(event, WatchError):
            model.take(event, time.time())


def _plain(boot: Json) -> str:
    why = boot["because"] or _doing(boot)
    stage = boot["stage"] or "seen"
    fix = f"; to fix: {boot['fix']}" if boot["fix"] else ""
    head = f"{boot['state']:<8}  {boot['machine']:<17}  {boot['address']:<15}  {stage:<9}  {boot['seconds']:7.1f}s"
    return printable(f"{head}  {why}{fix}", 1_024)


def _live(model: Model, events: queue.Queue[Event | WatchError], source: Source, keys: int | None) -> int:
    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    event = events.get_nowait()
                    if not isinstance(event, WatchError):
                        model.take(event, time.time())
            if model.opened is not None and model.opened["state"] == "running":
                model.opened = source.boot(model.opened["boot"]) or model.opened
            live.update(draw(model, console.width, console.height, time.time()), refresh=True)
            if keys is None:
                time.sleep(EVERY)
                continue
            if select.select([keys], [], [], EVERY)[0]:
                for key in _read(keys):
                    if not model.key(key, source.boot):
                        return 0


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """The terminal's keys, one by one; None where there is none to read."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield terminal
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        os.close(terminal)


_NAMED = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left", b"\x1bOA": "up", b"\x1bOB": "down",
    b"\x1b[5~": "page-up", b"\x1b[6~": "page-down", b"\r": "enter", b"\n": "enter", b"\x7f": "back", b"\x08": "back",
    b"\x1b": "escape", b"\x04": "end",
}  # fmt: skip


def _read(terminal: int) -> list[str]:
    """The keys that were pressed (ECMA-48 section 5.4 for those that send several octets)."""
    data = os.read(terminal, 256)
    found: list[str] = []
    while data:
        sequence = next((s for s in sorted(_NAMED, key=len, reverse=True) if data.startswith(s)), data[:1])
        found.append(_NAMED.get(sequence) or sequence.decode("latin-1"))
        data = data[len(sequence) :]
    return found
