"""HTTP/1.1 request heads in, response heads out (RFC 9112), bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """A request head.

    method   upper-case token
    path     percent-decoded path, as text; always starts with "/"; no query
    query    decoded pairs in order
    headers  names in lower case; of a repeated name the values joined with ", " (RFC 9110 section 5.3)
    version  10 or 11
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    version: int = 11
