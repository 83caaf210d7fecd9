"""The page that lists a published directory: one link an entry, a directory's with a slash, exact sizes, UTC.

The form is nginx's: what reads that one (FreeBSD's loader, wget, our own file system over HTTP) reads this one.
"""

from __future__ import annotations

import html
import time
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass

from bootwire.wire.text import printable


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry. name: octets without a slash; size: octets, 0 for a directory; modified: Unix seconds."""

    name: bytes
    is_directory: bool
    size: int
    modified: float


def render(path: str, entries: Iterable[Listed], *, more: bool = False) -> bytes:
    """path: below the published directory, "" for that itself; more: not all entries are here."""
    title = html.escape(printable(f"/{path}"))
    lines = [
        '<!DOCTYPE html><html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{title}</title></head><body><h1>{title}</h1><pre>",
    ]
    if path:
        lines.append('<a href="../">../</a>')
    for entry in sorted(entries, key=lambda entry: (not entry.is_directory, entry.name)):
        slash = "/" if entry.is_directory else ""
        # "./": a name with a colon is no scheme (RFC 3986 section 4.2)
        link = "./" + urllib.parse.quote_from_bytes(entry.name, safe="") + slash
        shown = printable(entry.name) + slash
        moment = time.strftime("%d-%b-%Y %H:%M", time.gmtime(entry.modified))
        size = "-" if entry.is_directory else str(entry.size)
        lines.append(f'<a href="{link}">{html.escape(shown)}</a>{" " * (50 - len(shown))} {moment} {size:>19}')
    lines.append("</pre>")
    if more:
        lines.append("<p>There are more files here than this page lists.</p>")
    lines.append("</body></html>")
    return "\n".join(lines).encode("utf-8", "replace")
