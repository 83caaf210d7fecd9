"""What a transfer sends: octets in memory or an open file, with the identity that caches and ETags go by.

The transfer loop knows nothing of catalogs, policies or paths: it asks a resolver and gets one of these.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bootwire.facts import Fact
    from bootwire.serve.growing import Reader
    from bootwire.wire import http

SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
"""What errno says when there is too little of something now, and later there may be more."""

Record = Callable[["Fact"], None]
"""Takes a fact from any thread, at once and without blocking; the journal stamps and writes it."""

RecordMade = Callable[..., None]
"""Takes a fact's kind and the values it is made of: the same for tens of thousands a second (Journal.record_made)."""


@dataclass(slots=True, eq=False)
class Content:
    """An open view of immutable octets. Whoever got it from a resolver calls `close` once.

    name        for the journal
    size        octets
    data        the octets, or None: then `fd` is a regular file opened for reading (use pread/sendfile with offsets;
                several Contents never share a file position)
    key         equal keys have equal octets (a digest, or device, inode, size and mtime): what caches go by
    etag        strong, quoted; stable while the octets are
    modified    HTTP date (RFC 9110 section 5.6.7), "" if not known
    machine     MAC of the machine this is for where the name told it, else ""
    still       whether the name that led here still does, None if nobody can say
    again       asked when a peer sends the same request again: the machine this is for then, or None where it has to be
                looked up anew. A resolver that sets it spares such requests the look-up
    """

    name: str
    size: int
    data: bytes | None = None
    fd: int = -1
    key: object = None
    etag: str = ""
    modified: str = ""
    media_type: str = "application/octet-stream"
    machine: str = ""
    still: Callable[[], bool] | None = field(default=None, repr=False)
    again: Callable[[Peer], str | None] | None = field(default=None, repr=False)

    def another(self, machine: str) -> Content:
        """The same octets for a machine, to be closed on their own. Raises OSError."""
        fd = os.dup(self.fd) if self.fd >= 0 else -1
        return Content(
            self.name, self.size, self.data, fd, self.key, self.etag, self.modified, self.media_type, machine,
            self.still,
        )  # fmt: skip

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


@dataclass(frozen=True, slots=True)
class Missing:
    """No such name, or not to be had. because: for the journal and the peer; of the name only what is printable."""

    because: str
    machine: str = ""
    forbidden: bool = False  # exists but will not be served (TFTP ERROR 2, HTTP 403)
    quiet: bool = False  # an optional name whose absence is a normal part of a boot


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole small HTTP response made on the spot (a script, a notice)."""

    status: int
    body: bytes
    media_type: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The octets live at another server: the transfer loop hands the connection to the control loop, which streams.

    url is the operator's, never the peer's. trusted: the operator's own word; else it came from a boot service.
    kept: what reads it from the cache while it comes there, None where it is not to be kept.
    """

    name: str
    url: str
    machine: str = ""
    media_type: str = "application/octet-stream"
    trusted: bool = True
    kept: Callable[[], Awaitable[Reader | None]] | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """The answer is not known yet: the control loop awaits `known`, then the same request is looked up again.

    known   made in the transfer loop, awaited in the control loop; it bounds its own time and raises nothing. When it
            has ended, the resolver must have another answer than Later
    """

    known: Callable[[], Awaitable[object]]
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, and on which of our addresses. All IPv4 dotted; ports 1..65535."""

    address: str
    port: int
    ours: str


class TftpResolver(Protocol):
    """Looks a TFTP name up. Called in the transfer loop: must not block longer than an open(2).

    Raises OSError with one of SHORTAGES when it cannot say.
    """

    def __call__(self, name: bytes, peer: Peer) -> Content | Missing: ...


class HttpResolver(Protocol):
    """Looks an HTTP GET or HEAD up. Called in the transfer loop: must not block longer than an open(2).

    Raises OSError with one of SHORTAGES when it cannot say.
    """

    def __call__(self, request: http.Request, peer: Peer) -> Content | Missing | Reply | Upstream | Later: ...
