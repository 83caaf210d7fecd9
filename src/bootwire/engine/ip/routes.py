"""The routing table: where a packet goes next. Longest prefix wins, then the lower metric; no address classes."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass

ROUTES_MAX = 1024  # a table that an option-121 or a router advertisement could fill is bounded


@dataclass(frozen=True, slots=True)
class Route:
    """network: 4 or 16 octets, host bits zero; prefix: its length in bits; gateway: None on the link itself."""

    network: bytes
    prefix: int
    gateway: bytes | None = None
    metric: int = 0

    def covers(self, address: bytes) -> bool:
        return len(address) == len(self.network) and masked(address, self.prefix) == self.network


class Routes:
    """Routes of both families."""

    def __init__(self) -> None:
        self._routes: list[Route] = []  # most specific first

    def add(self, network: bytes, prefix: int, gateway: bytes | None = None, metric: int = 0) -> Route:
        """Add a route, or replace the one to the same network of the same metric. ValueError if it cannot be."""
        if not 0 <= prefix <= 8 * len(network) or (gateway is not None and len(gateway) != len(network)):
            raise ValueError("prefix or gateway does not fit the network")
        self.delete(network, prefix, metric)
        if len(self._routes) >= ROUTES_MAX:
            raise ValueError(f"more than {ROUTES_MAX} routes")
        route = Route(masked(network, prefix), prefix, gateway, metric)
        insort(self._routes, route, key=lambda r: (-r.prefix, r.metric))
        return route

    def default(self, gateway: bytes, metric: int = 0) -> Route:
        return self.add(bytes(len(gateway)), 0, gateway, metric)

    def delete(self, network: bytes, prefix: int, metric: int | None = None) -> bool:
        """Whether there was one. metric None: of any metric."""
        network = masked(network, prefix)
        kept = [
            r for r in self._routes
            if (r.network, r.prefix) != (network, prefix) or (metric is not None and r.metric != metric)
        ]  # fmt: skip
        found = len(kept) < len(self._routes)
        self._routes = kept
        return found

    def find(self, address: bytes) -> Route | None:
        """The route to `address`, None if there is no way."""
        for route in self._routes:
            if route.covers(address):
                return route
        return None

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)


def masked(address: bytes, prefix: int) -> bytes:
    """`address` with all but its first `prefix` bits zero."""
    size = len(address)
    shift = 8 * size - prefix
    return (int.from_bytes(address, "big") >> shift << shift).to_bytes(size, "big")
