"""Directory listings as web servers write them: Apache (plain, fancy and as a table), nginx, Caddy, lighttpd, Python.

There is no standard for them. What they share: every entry is a link, relative to the directory, and a directory's
ends in a slash. Sizes and dates stand after the link in each server's own way; they are read where they are exact.
"""

from __future__ import annotations

import calendar
import html
import re
import urllib.parse
from dataclasses import dataclass
from typing import Final

from bootwire.wire.reader import WireError
from bootwire.wire.url import Url, parse_url, resolve

MAX_ENTRIES: Final = 100_000
MAX_NAME: Final = 255  # octets of a name: NAME_MAX of Linux


@dataclass(frozen=True, slots=True)
class Entry:
    """name: decoded, without a slash; size: octets, None where the listing has none or a rounded one; modified: Unix
    seconds, None where the listing has none."""

    name: str
    is_directory: bool
    size: int | None = None
    modified: int | None = None


def parse_listing(page: bytes, url: str) -> list[Entry]:
    """The entries of an HTML listing of the directory at `url`, in its order, each name once.

    Links to other places (the parent, other orders of the listing, the server's home page) are no entries.
    Raises WireError: `url` is none, or more than MAX_ENTRIES.
    """
    base = parse_url(url)
    directory = base.target.partition("?")[0].rpartition("/")[0] + "/"
    text = page.decode("utf-8", "replace")
    links = list(_LINK.finditer(text))
    entries: dict[str, Entry] = {}
    for number, link in enumerate(links):
        name = _name(html.unescape(link[1] or link[2] or link[3] or ""), base, directory)
        if name is None or name.rstrip("/") in entries:
            continue
        end = links[number + 1].start() if number + 1 < len(links) else len(text)
        size, modified = _details(text[link.end() : min(end, link.end() + 2000)])
        is_directory = name.endswith("/")
        entries[name.rstrip("/")] = Entry(name.rstrip("/"), is_directory, None if is_directory else size, modified)
        if len(entries) > MAX_ENTRIES:
            raise WireError(f"a directory of more than {MAX_ENTRIES} entries", link.start())
    return list(entries.values())


# --- helpers ----------------------------------------------------------------------------------------------------

_LINK = re.compile(
    r"""<a\b[^<>]{0,200}?\bhref\s{0,9}=\s{0,9}(?:"([^"<>]{1,2000})"|'([^'<>]{1,2000})'|([^\s"'<>]{1,2000}))""", re.I
)
_PLAIN = re.compile(r"(?:\./)?([A-Za-z0-9_~-][A-Za-z0-9._~-]{0,254}/?)")  # most names: relative, nothing to decode
_TAG = re.compile(r"<[^<>]{0,500}>")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(
    r"(?P<day>[0-9]{2})-(?P<name>[A-Z][a-z]{2})-(?P<year>[0-9]{4}) (?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})|"
    r"(?P<year2>[0-9]{4})-(?P<month2>[0-9]{2})-(?P<day2>[0-9]{2}) (?P<hour2>[0-9]{2}):(?P<minute2>[0-9]{2})"
)
_SIZE = re.compile(r"\s{1,200}([0-9]{1,18})(?![0-9.:KMGTkmgt-])")


def _name(href: str, base: Url, directory: str) -> str | None:
    """What a link calls an entry of `directory`; None if it is none."""
    if (plain := _PLAIN.fullmatch(href)) is not None:
        return plain[1]
    try:
        found = resolve(base, href)
    except WireError:
        return None
    rest = found.target.removeprefix(directory)
    if found.origin != base.origin or not found.target.startswith(directory) or "?" in rest:
        return None
    name = urllib.parse.unquote_to_bytes(rest)
    bare = name.removesuffix(b"/")
    if not bare or len(bare) > MAX_NAME or b"/" in bare or b"\0" in bare or bare in (b".", b".."):
        return None
    return name.decode("utf-8", "surrogateescape")


def _details(after: str) -> tuple[int | None, int | None]:
    """Size and moment in what follows a link, up to the next one."""
    text = _TAG.sub(" ", after)
    date = _DATE.search(text)
    if date is None:
        return None, None
    size = _SIZE.match(text, date.end())
    year, month, day = date["year"] or date["year2"], date["month2"], date["day"] or date["day2"]
    if month is None:
        name = date["name"].lower()
        month = str(_MONTHS.index(name) + 1) if name in _MONTHS else "0"
    moment = None
    if int(year) >= 1970 and 1 <= int(month) <= 12 and 1 <= int(day) <= 31:
        hour, minute = int(date["hour"] or date["hour2"]), int(date["minute"] or date["minute2"])
        moment = calendar.timegm((int(year), int(month), int(day), hour, minute, 0))
    return int(size[1]) if size else None, moment
