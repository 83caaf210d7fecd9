"""One syslog line (RFC 3164, RFC 5424), read as leniently as its senders write.

iPXE's console sends `<6>[HOST[.DOMAIN] ]ipxe: TEXT` without a time (ipxe/src/net/udp/syslog.c); the kernels and
installers that follow it send the usual forms. Every datagram is a line: what fits no form is all text (RFC 3164
section 4.3.3). Reading only: nothing here sends syslog.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LIMIT = 2_048
"""Octets looked at: RFC 5424 section 6.1 wants 480 taken and suggests 2,048."""

_PRIORITY = re.compile(rb"<([0-9]{1,3})>")
_TIME = re.compile(rb"[A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} ")
_IPXE = re.compile(rb"(?:(\S{1,255}) )?(ipxe): ")
_TAGGED = re.compile(rb"(?:([^\s:\[]{1,255}) )?([^\s:\[]{1,48})(?:\[[^\]\s]{0,48}\])?: ?")
_STRUCTURED = re.compile(rb'(?:-|(?:\[(?:[^\]"\\]|"(?:[^"\\]|\\.)*"|\\.)*\])+)(?: |$)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """facility 0..23, severity 0..7 (RFC 5424 section 6.2.1); host and tag: "" where the sender did not say.

    Texts are decoded as UTF-8, what is not is spelled out; they are not escaped: a text may hold control characters.
    """

    facility: int
    severity: int
    host: str
    tag: str
    text: str


def parse(data: bytes) -> Line:
    """Read one datagram. Never raises."""
    data = data[:LIMIT].rstrip(b"\r\n\0")
    facility, severity, rest = 1, 5, data  # user, notice: RFC 3164 section 4.3.3
    if (found := _PRIORITY.match(data)) and int(found[1]) <= 191:
        facility, severity = divmod(int(found[1]), 8)
        rest = data[found.end() :]
    host, tag, text = _new_form(rest) or _old_form(rest)
    return Line(facility, severity, _text(host), _text(tag), _text(text))


def _new_form(rest: bytes) -> tuple[bytes, bytes, bytes] | None:
    """RFC 5424: VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA [MSG]"""
    fields = rest.split(b" ", 6)
    if len(fields) < 7 or fields[0] != b"1":
        return None
    text = fields[6]
    if found := _STRUCTURED.match(text):
        text = text[found.end() :]
    host, tag = (b"" if field == b"-" else field for field in fields[2:4])
    return host, tag, text.removeprefix(b"\xef\xbb\xbf")


def _old_form(rest: bytes) -> tuple[bytes, bytes, bytes]:
    """RFC 3164: [TIMESTAMP HOSTNAME] TAG[PID]: CONTENT, and iPXE's."""
    if found := _IPXE.match(rest):
        return found[1] or b"", found[2], rest[found.end() :]
    if timed := _TIME.match(rest):
        rest = rest[timed.end() :]
        if found := _TAGGED.match(rest):
            return found[1] or b"", found[2], rest[found.end() :]
    return b"", b"", rest


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")
