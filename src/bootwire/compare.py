"""`bootwire diff`: two boots, wherever they are kept, and what differs between them."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
import sys
import textwrap
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import click

from bootwire.observe import jsonlines
from bootwire.observe.boots import Boots, fold
from bootwire.observe.diff import WHO, differences
from bootwire.observe.story import whole
from bootwire.serve.loaders import state_directory
from bootwire.serve.mode import StartError
from bootwire.serve.store import FILE, Store
from bootwire.serve.timeline import Timeline
from bootwire.wire.text import printable

FILE_LIMIT = 1 << 30
"""Octets read of a file of JSON lines: some millions of facts."""

_MAC = re.compile(r"(?P<machine>[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5})(?:~(?P<back>[0-9]{1,4}))?", re.IGNORECASE)
Json = dict[str, Any]


def run(one: str, other: str, page: str, token_file: str, state_dir: str | None, as_json: bool) -> int:
    """Print what differs. Returns 0 where they went the same way, else 1. Raises StartError."""
    with contextlib.ExitStack() as stack:
        kept = _Kept(page, token_file, state_directory(state_dir), stack)
        first, second = kept.find(one), kept.find(other)
    rows = differences(first, second)
    same = all(row["what"] in WHO for row in rows)
    if as_json:
        click.echo(json.dumps({"v": 1, "one": _named(first), "other": _named(second), "rows": rows}))
        return 0 if same else 1
    for label, boot in (("ONE", first), ("OTHER", second)):
        when = printable(f"{boot['machine']}  {boot['client']}  {boot['state']}", 200)
        click.echo(f"{label:<6} boot {boot['boot']}  {when}")
    if same:
        click.echo("\nThe two went the same way, in the same time.")
        return 0
    click.echo("")
    for row in rows:
        note = f"   ({row['note']})" if row["note"] else ""
        first_text, second_text = (printable(row[name], 400) or "-" for name in ("one", "other"))
        what = f"{printable(row['what'], 60):<22}  "
        if len(first_text) + len(second_text) < 50:  # with what it is about and a note, on 80 columns
            click.echo(f"{what}{first_text}  ->  {second_text}{note}")
        else:
            click.echo(_folded(what, first_text))
            click.echo(_folded(f"{'':24}-> ", second_text + note))
    return 1


def _folded(before: str, text: str) -> str:
    """`text` behind `before`, in a terminal's width and below itself; one line where no person reads it."""
    if not sys.stdout.isatty():
        return before + text
    return textwrap.fill(
        before + text, max(40, shutil.get_terminal_size().columns), subsequent_indent=" " * len(before)
    )


class _Kept:
    """Where boots are: the running server's page, else the state directory."""

    def __init__(self, page: str, token_file: str, state: Path, stack: contextlib.ExitStack) -> None:
        self._page = page.rstrip("/")
        self._state = state
        self._stack = stack
        self._timeline: Timeline | None = None
        self._headers: dict[str, str] = {}
        self._asked = True  # whether the page answers, as far as is known
        if token_file:
            try:
                self._headers["Authorization"] = f"Bearer {Path(token_file).read_text().strip()}"
            except OSError as error:
                raise StartError(f"cannot read {token_file}: {error.strerror}", 2) from None

    def find(self, what: str) -> Json:
        """The boot that a person means by `what`. Raises StartError."""
        if what.isascii() and what.isdigit() and len(what) <= 18:
            return self._numbered(int(what), what)
        if found := _MAC.fullmatch(what):
            machine = found["machine"].lower().replace("-", ":")
            return self._numbered(self._of(machine, int(found["back"] or 0), what), what)
        return _of_file(what)

    def _numbered(self, number: int, what: str) -> Json:
        boot: Json | None
        try:
            boot = self._ask(f"/api/boots/{number}")
        except OSError:
            boot = self._history(what).boot(number)
        if boot is None:
            raise StartError(f"there is no boot {number}: it was forgotten, or never was\n  try  bootwire watch --once")
        return boot

    def _of(self, machine: str, back: int, what: str) -> int:
        try:
            lines = self._ask(f"/api/machines/{urllib.parse.quote(machine)}/boots?limit={back + 2}") or []
            number = lines[back]["boot"] if back < len(lines) else None
        except OSError:
            number = self._history(what).last_of(machine, back)
        if number is None:
            times = f"{back + 1} times" if back else "from here"
            raise StartError(f"{machine} has not booted {times}")
        return int(number)

    def _ask(self, path: str) -> Any:
        """What the page says, None where it has no such thing. Raises OSError where there is no page."""
        if not self._asked:
            raise OSError("no page")
        request = urllib.request.Request(self._page + path, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                if error.code == 401:
                    raise StartError(f"{self._page} wants the token\n  try  --token-file FILE") from None
                raise StartError(f"{self._page} answers {error.code}: is that a bootwire page?") from None
        except ValueError:
            raise StartError(f"{self._page} does not answer as a bootwire page does") from None
        except OSError:
            self._asked = False
            raise

    def _history(self, what: str) -> Timeline:
        if self._timeline is None:
            if not (self._state / FILE).exists():
                because = f"no server answers at {self._page}, and nothing is kept in {self._state}"
                raise StartError(f"{because}\n  try  --state-dir DIR, or files of JSON lines instead of {what}")
            try:
                store = Store(self._state)
                self._stack.callback(store.close)
                self._timeline = Timeline(store, lambda fact: None, reading=True)
            except (OSError, sqlite3.Error) as error:
                raise StartError(f"cannot read the history in {self._state}: {error}") from None
        return self._timeline


def _of_file(what: str) -> Json:
    """The last boot in a file of JSON lines; of FILE:MAC the last one of that machine."""
    path, machine = what, ""
    if len(what) > 18 and what[-18] == ":" and _MAC.fullmatch(what[-17:]):
        path, machine = what[:-18], what[-17:].lower().replace("-", ":")
    try:
        boots = _read(Path(path))
    except OSError as error:
        hint = "a boot's number, a MAC, or a file of JSON lines"
        raise StartError(f"{what} is no boot: {error.strerror}\n  try  {hint}", 2) from None
    found = boots.latest(machine) if machine else next(iter(reversed(boots.all())), None)
    if found is None:
        raise StartError(f"{path} has no boot{f' of {machine}' if machine else ''} in it", 2)
    return whole(found)


def _read(path: Path) -> Boots:
    records = []
    with path.open("rb") as file:
        for line in file.read(FILE_LIMIT).splitlines():
            with contextlib.suppress(ValueError):
                records.append(jsonlines.parse(line))
    boots = fold(records)
    if records:
        boots.tick(records[-1].at + 3_600 * 10**9)  # nothing more will be heard of those that were under way
    return boots


def _named(boot: Json) -> Json:
    return {name: boot[name] for name in ("boot", "machine", "client", "started", "state")}
