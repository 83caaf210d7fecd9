"""URLs of servers (RFC 3986), strictly: nothing is escaped or repaired on the quiet."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from bootwire.wire.reader import WireError


@dataclass(frozen=True, slots=True)
class Url:
    """scheme: in lower case; host: a name or a literal, without brackets; target: as sent, "/" at least."""

    scheme: str
    host: str
    port: int
    target: str
    username: str = ""
    password: str = ""

    @property
    def origin(self) -> str:
        """ "http://192.0.2.1:8080", without a default port."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """The Host field: brackets around an IPv6 literal, no default port (RFC 9110 section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


HTTP: Collection[str] = ("http", "https")
FETCHED: Collection[str] = ("http", "https", "ftp", "tftp")


def parse_url(text: str, schemes: Collection[str] = HTTP) -> Url:
    """Read an absolute URL of one of `schemes`, which are among FETCHED; a fragment is dropped.

    Raises WireError: white space and controls are never escaped on the quiet, for what was meant is not known.
    """
    bad = re.search(r"[^!-~]", text)
    if bad:
        raise WireError("URL with a character that must be percent-encoded", bad.start())
    match = _URL.fullmatch(text)
    scheme = match["scheme"].lower() if match else ""
    if match is None or scheme not in schemes:
        raise WireError(f"not an absolute {' or '.join(schemes)} URL", 0)
    port = int(match["port"]) if match["port"] else _PORTS[scheme]
    if not 0 < port < 65536:
        raise WireError(f"URL with port {port}", match.start("port"))
    username, _, password = (match["user"] or "").partition(":")
    target = match["target"] or "/"
    return Url(
        scheme,
        (match["v6"] or match["host"]).lower(),
        port,
        target if target[0] == "/" else "/" + target,
        _unquoted(username),
        _unquoted(password),
    )


def resolve(base: Url, reference: str) -> Url:
    """A Location against the URL it came from (RFC 3986 section 5.2). Raises WireError."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", reference):
        return parse_url(reference)
    if reference.startswith("//"):
        return parse_url(f"{base.scheme}:{reference}")
    path, _, query = base.target.partition("?")
    reference = reference.partition("#")[0]
    if reference.startswith("/"):
        target = _without_dots(reference)
    elif reference.startswith("?"):
        target = path + reference
    elif reference:
        target = _without_dots(path.rsplit("/", 1)[0] + "/" + reference)
    else:
        target = path + ("?" + query if query else "")
    return parse_url(base.origin + target)


# --- helpers ----------------------------------------------------------------------------------------------------

_PORTS = {"http": 80, "https": 443, "ftp": 21, "tftp": 69}
_URL = re.compile(
    r"(?P<scheme>https?|t?ftp)://(?:(?P<user>[^/?#@\[\]]*)@)?(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[A-Za-z0-9._~%-]{1,255}))"
    r"(?::(?P<port>[0-9]{0,5}))?(?P<target>[/?][^#]*)?(?:#.*)?",
    re.IGNORECASE,
)


def _unquoted(text: str) -> str:
    return re.sub(r"%([0-9A-Fa-f]{2})", lambda match: chr(int(match[1], 16)), text)


def _without_dots(target: str) -> str:
    """RFC 3986 section 5.2.4; the query stays as it is."""
    path, question, query = target.partition("?")
    out: list[str] = []
    parts = path.split("/")[1:]
    for at, part in enumerate(parts):
        if part == "..":
            out = out[:-1]
        elif part != ".":
            out.append(part)
        if part in (".", "..") and at == len(parts) - 1:
            out.append("")
    return "/" + "/".join(out) + question + query
