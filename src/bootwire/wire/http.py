"""HTTP/1.1 request heads in, response heads out (RFC 9110, RFC 9112), bounded.

Strict where leniency makes two readings possible (line ends, folding, lengths), lenient where old loaders need it:
HTTP/1.0, no Host, raw octets above 0x7F in a target, and "%" that encodes nothing. No bodies, no chunks: a server
of files has no use for them.
"""

from __future__ import annotations

import datetime
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bootwire.wire.reader import WireError

MAX_LINE = 8 * 1024
"""Octets of a request line or field line without its CRLF: what nginx and Apache allow."""

MAX_FIELDS = 100
"""Field lines in a head: Apache's LimitRequestFields. Firmware sends at most ten."""

MAX_HEAD = 32 * 1024
"""Octets of a whole head, the empty line included: nginx's four buffers of 8 KiB."""

LONG_LINE = f"line longer than {MAX_LINE} octets"
LONG_TARGET = f"request line longer than {MAX_LINE} octets"
LONG_HEAD = f"head longer than {MAX_HEAD} octets"
MANY_FIELDS = f"more than {MAX_FIELDS} header fields"
OTHER_VERSION = "HTTP version other than 1.x"


@dataclass(frozen=True, slots=True)
class Request:
    """A request head.

    method     token as sent; methods are case-sensitive
    path       percent-decoded path, as text (octets that are not UTF-8 as lone surrogates, PEP 383); always starts
               with "/"; no query; "..", NUL and "//" are still in it
    query      decoded pairs in order; "+" stays "+", as iPXE means it
    headers    names in lower case; of a repeated name the values joined with ", " (RFC 9110 section 5.3); values
               as latin-1 text without surrounding white space
    version    10 or 11; a later 1.x counts as 11 (RFC 9110 section 2.5)
    authority  "host[:port]" of an absolute-form target, else "": who sends one takes us for a proxy
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    version: int = 11
    authority: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """A response head. status: 100..999; headers and version as in Request."""

    status: int
    headers: Mapping[str, str]
    version: int = 11


# Possessive quantifiers: no input makes these go back over what they have read.
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}+) ([!-~\x80-\xff]++) HTTP/([0-9])\.([0-9])\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]++):([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n")
_ABSOLUTE = re.compile(rb"https?://([^/?#@\\]*)(|[/?][^#]*)", re.IGNORECASE)
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_ONCE = frozenset((b"host", b"content-length", b"transfer-encoding"))


def parse_request(head: bytes) -> Request:
    """Read one request head: from the request line to the empty line, both included, and nothing after it.

    Raises WireError: anything that is not one; `what` is LONG_TARGET, LONG_LINE, LONG_HEAD, MANY_FIELDS or
    OTHER_VERSION where a status code says more than 400.
    Refused although some servers take them: folded lines (RFC 9112 section 5.2), white space before the colon, bare
    CR or LF, NUL, two Hosts or Content-Lengths, Content-Length beside Transfer-Encoding (section 6.3, smuggling).
    """
    if len(head) > MAX_HEAD:
        raise WireError(LONG_HEAD, MAX_HEAD)
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise _why_not_a_request_line(head)
    if line.end() > MAX_LINE + 2:
        raise WireError(LONG_TARGET, MAX_LINE)
    method, target, major, minor = line.groups()
    if major != b"1":
        raise WireError(OTHER_VERSION, line.start(3))
    headers = parse_fields(head, line.end())
    authority = ""
    if target[0] != 0x2F:
        if not (absolute := _ABSOLUTE.fullmatch(target)):
            raise WireError("request target that is not a path", line.start(2))
        authority = absolute[1].decode("latin-1")
        if not authority or not _HOST.fullmatch(authority):
            raise WireError("request target without a valid host", line.start(2))
        target = absolute[2]
        if target[:1] != b"/":
            target = b"/" + target
    raw, question, query = target.partition(b"?")
    return Request(
        method.decode("ascii"),
        _decoded(raw),
        _pairs(query) if question else (),
        headers,
        10 if minor == b"0" else 11,
        authority,
    )


def parse_fields(head: bytes, at: int, repeatable: tuple[str, ...] = ()) -> dict[str, str]:
    """The field lines of `head` from octet `at` to the empty line that ends it.

    repeatable: of the fields that may come once, those that may come again with the same value.
    Raises WireError as `parse_request`.
    """
    fields: dict[str, str] = {}
    count, end = 0, len(head)
    while True:
        field = _FIELD.match(head, at)
        if field is None:
            break
        count += 1
        if count > MAX_FIELDS:
            raise WireError(MANY_FIELDS, at)
        if field.end() - at > MAX_LINE + 2:
            raise WireError(LONG_LINE, at)
        name, value = field.groups()
        name = name.lower()
        key, text = name.decode("ascii"), value.decode("latin-1").strip(" \t")
        if key not in fields:
            fields[key] = text
        elif key in repeatable and fields[key] == text:
            pass
        elif name in _ONCE:
            raise WireError(f"second {key}", at)
        else:
            fields[key] = f"{fields[key]}, {text}"
        at = field.end()
    if head[at : at + 2] != b"\r\n" or at + 2 != end:
        raise _why_not_a_field(head, at)
    if "content-length" in fields:
        if "transfer-encoding" in fields:
            raise WireError("content-length beside transfer-encoding", at)
        if not _LENGTH.fullmatch(fields["content-length"]):
            raise WireError("content-length that is not a number", at)
    if not _HOST.fullmatch(fields.get("host", "")):
        raise WireError("host that is not host[:port]", at)
    return fields


_LENGTH = re.compile(r"[0-9]{1,18}")

_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n")


def parse_response(head: bytes) -> Response:
    """Read one response head: from the status line to the empty line, both included, and nothing after it.

    Raises WireError as `parse_request`; but Content-Length may come twice if it says the same (RFC 9110 section 8.6),
    and the reason phrase and its space may be missing, as in old servers.
    """
    if len(head) > MAX_HEAD:
        raise WireError(LONG_HEAD, MAX_HEAD)
    line = _STATUS_LINE.match(head)
    if line is None:
        raise WireError("status line that is not HTTP/1.x CODE REASON", 0)
    headers = parse_fields(head, line.end(), repeatable=("content-length",))
    return Response(int(line[2]), headers, 10 if line[1] == b"0" else 11)


def emit_request(method: str, target: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """A request head, the empty line included.

    Raises ValueError: a target with a space or control in it, a field that would not be one line of latin-1.
    """
    if re.search(r"[^!-~]", target):
        raise ValueError("request target that is not printable ASCII")
    return _emit([f"{method} {target} HTTP/1.1\r\n"], fields)


def _why_not_a_request_line(head: bytes) -> WireError:
    end = head.find(b"\n")
    line = head[:end] if end >= 0 else head
    if len(line) > MAX_LINE + 1:
        return WireError(LONG_TARGET, MAX_LINE)
    if end > 0 and line[-1:] != b"\r":
        return WireError("request line that ends in a bare line feed", end)
    for octet, what in ((0, "NUL"), (13, "carriage return")):
        at = line[:-1].find(octet)
        if at >= 0:
            return WireError(f"{what} in the request line", at)
    return WireError("request line that is not METHOD TARGET HTTP/1.x", 0)


def _why_not_a_field(head: bytes, at: int) -> WireError:
    end = head.find(b"\n", at)
    line = head[at:end] if end >= 0 else head[at:]
    if len(line) > MAX_LINE + 1:
        return WireError(LONG_LINE, at)
    if line[:1] in (b" ", b"\t"):
        return WireError("folded header field", at)
    if line == b"\r":
        return WireError("octets after the head", at + 2)
    if end >= 0 and line[-1:] != b"\r":
        return WireError("header field that ends in a bare line feed", end)
    for octet, what in ((0, "NUL"), (13, "carriage return")):
        found = line[:-1].find(octet)
        if found >= 0:
            return WireError(f"{what} in a header field", at + found)
    return WireError("header field that is not NAME: VALUE", at)


def _decoded(raw: bytes) -> str:
    if b"%" in raw:
        raw = urllib.parse.unquote_to_bytes(raw)
    return raw.decode("utf-8", "surrogateescape")


def _pairs(query: bytes) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in query.split(b"&"):
        if item:
            name, _, value = item.partition(b"=")
            pairs.append((_decoded(name), _decoded(value)))
    return tuple(pairs)


# --- responses ---------------------------------------------------------------------------------------------------

REASONS: Mapping[int, str] = {
    200: "OK", 206: "Partial Content",
    301: "Moved Permanently", 304: "Not Modified", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 412: "Precondition Failed", 413: "Content Too Large",
    414: "URI Too Long", 416: "Range Not Satisfiable", 421: "Misdirected Request",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable", 505: "HTTP Version Not Supported",
}  # fmt: skip
"""Reason phrases (RFC 9110 section 15, RFC 6585) of the codes we send. iPXE wants the space before one in any case."""

_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")


def emit_head(status: int, fields: Iterable[tuple[str, str]]) -> bytes:
    """A response head, the empty line included.

    Raises ValueError: a field name or value that would not be one line of latin-1. Ours, never a peer's.
    """
    return _emit([f"HTTP/1.1 {status} {REASONS.get(status, '')}\r\n"], fields)


def _emit(lines: list[str], fields: Iterable[tuple[str, str]]) -> bytes:
    for name, value in fields:
        if _UNSAFE.search(name) or _UNSAFE.search(value):
            raise ValueError(f"header field {name!r} does not fit on one line")
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


MEDIA_TYPES: Mapping[str, str] = {
    "efi": "application/efi",  # UEFI 2.10 section 24.7.1.2; HttpBootDxe compares the whole value
    "iso": "application/vnd.efi-iso",
    "img": "application/vnd.efi-img",
    "ipxe": "text/plain", "cfg": "text/plain", "conf": "text/plain", "txt": "text/plain", "ks": "text/plain",
    "seed": "text/plain", "lst": "text/plain", "yaml": "text/plain", "yml": "text/plain",
    "json": "application/json", "xml": "application/xml", "html": "text/html", "gz": "application/gzip",
    "sha256": "text/plain", "sig": "application/octet-stream",
}  # fmt: skip
"""Content-Type by file suffix, without parameters."""


def media_type(name: str) -> str:
    """The Content-Type of a file called `name`; application/octet-stream where the suffix says nothing."""
    _, dot, suffix = name.rpartition(".")
    return MEDIA_TYPES.get(suffix.lower(), "application/octet-stream") if dot else "application/octet-stream"


# --- ranges and preconditions ------------------------------------------------------------------------------------

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))[ \t]*", re.IGNORECASE)


def parse_range(value: str, size: int) -> tuple[int, int] | None:
    """Which octets of `size` a Range field asks for (RFC 9110 section 14.2), as [start, stop).

    None: to be ignored and the whole sent: another unit, not well-formed, or several ranges, which a server may
    always answer with the whole (no firmware asks for several; scanners ask for thousands).
    start == stop: well-formed but not satisfiable, the answer is 416.
    """
    match = _RANGE.fullmatch(value)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        length = int(suffix)
        if size == 0 and length:
            return None  # satisfiable, but no Content-Range can say so
        return max(0, size - length), size
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        return size, size
    return start, min(size, int(last) + 1) if last else size


_TAGS = re.compile(r'[ \t]*+(?:(W/)?("[\x21\x23-\x7e\x80-\xff]*+"))?[ \t]*+(?:,|$)')


def matches(field: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags, as in If-Match, names `etag` ("*" names every one that exists).

    etag  strong and quoted, "" if the octets have none
    weak  compare weakly (RFC 9110 section 8.8.3.2): If-None-Match; else strongly: If-Match, If-Range
    """
    if field.strip(" \t") == "*":
        return True
    at = 0
    while at < len(field) and (tag := _TAGS.match(field, at)):
        if etag and tag[2] == etag and (weak or not tag[1]):
            return True
        at = tag.end()
    return False


# --- dates -------------------------------------------------------------------------------------------------------

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LAST = 253_402_300_799  # 9999-12-31 23:59:59, the last moment a date of four-digit years can name
_DATES = (
    re.compile(r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"),
    re.compile(r"[A-Z][a-z]{5,8}, ([0-9]{2})-([A-Z][a-z]{2})-([0-9]{2}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"),
    re.compile(r"[A-Z][a-z]{2} ()([A-Z][a-z]{2}) ([0-9 ][0-9]) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([0-9]{4})"),
)


def format_date(seconds: float) -> str:
    """An HTTP date (IMF-fixdate, RFC 9110 section 5.6.7) of `seconds` since the Unix epoch, clamped to 1970..9999."""
    moment = _EPOCH + datetime.timedelta(seconds=int(min(max(seconds, 0), _LAST)))
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    return f"{day}, {moment.day:02} {month} {moment.year:04} {moment.hour:02}:{moment.minute:02}:{moment.second:02} GMT"


def parse_date(text: str) -> int | None:
    """Seconds since the Unix epoch of an HTTP date in any of its three forms; None where it is none.

    A two-digit year means 1970 to 2069.
    """
    for form, pattern in enumerate(_DATES):
        match = pattern.fullmatch(text)
        if match is not None:
            if form == 2:
                _, month, day, hour, minute, second, year = match.groups()
            else:
                day, month, year, hour, minute, second = match.groups()
            full = int(year) if len(year) == 4 else int(year) + (2000 if int(year) < 70 else 1900)
            try:
                clock = datetime.time(int(hour), int(minute), min(int(second), 59), tzinfo=datetime.UTC)
                moment = datetime.datetime.combine(datetime.date(full, _MONTHS.index(month) + 1, int(day)), clock)
            except ValueError:
                return None
            return int((moment - _EPOCH).total_seconds())
    return None
