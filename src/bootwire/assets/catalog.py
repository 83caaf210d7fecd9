"""What the server may hand out: a frozen mapping from names to blobs. A request is a key, never a path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Inline:
    """The octets themselves."""

    data: bytes


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine, named by the operator (never by a peer); the edge opens it."""

    path: str


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """An http or https URL named by the operator, streamed through when asked for."""

    url: str


@dataclass(frozen=True, slots=True)
class Transformed:
    """A small file of this machine, named by the operator, read anew for each request and changed on its way out.

    largest: octets it may have; change: total for any octets
    """

    path: str
    largest: int
    change: Callable[[bytes], bytes]


Source = Inline | LocalFile | RemoteFile | Transformed


@dataclass(frozen=True, slots=True)
class Blob:
    """Named immutable octets.

    name        as in the catalog, "/"-separated, no leading slash: "x86_64/snponly.efi", "kernel", "initrd/0"
    size        octets, or -1 where only asking the source can tell
    media_type  the exact Content-Type, without parameters (UEFI HTTP Boot compares it octet for octet)
    digest      lower-case hexadecimal SHA-256, "" if not known
    """

    name: str
    size: int
    source: Source
    media_type: str = "application/octet-stream"
    digest: str = ""


Catalog = Mapping[str, Blob]
