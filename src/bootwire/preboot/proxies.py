"""Which HTTP proxy a URL goes through, in the words of the environment variables that every downloader reads."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from bootwire.wire.url import Url


@dataclass(frozen=True, slots=True)
class Proxies:
    """http, https: proxy URLs for these schemes, "" for none. direct: what no proxy is used for.

    An entry of `direct` is a host ("boot.example" with every host below it; a leading "." or "*." changes nothing),
    an address, a network ("10.0.0.0/8"), any of them with ":port", or "*" for everything.
    """

    http: str = ""
    https: str = ""
    direct: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """http_proxy, https_proxy, all_proxy and no_proxy. In capitals they count, too, except HTTP_PROXY: a web
        server sets that from a request's Proxy field (httpoxy, CVE-2016-5385)."""

        def said(name: str) -> str:
            return environment.get(name) or environment.get(name.upper(), "")

        every = said("all_proxy")
        entries = (entry.strip().lower() for entry in said("no_proxy").split(","))
        return cls(
            _with_scheme(environment.get("http_proxy") or every),
            _with_scheme(said("https_proxy") or every),
            tuple(entry for entry in entries if entry),
        )

    @classmethod
    def all(cls, proxy: str, direct: tuple[str, ...] = ()) -> Self:
        """One proxy for both schemes; "host:port" is as good as "http://host:port"."""
        return cls(_with_scheme(proxy), _with_scheme(proxy), direct)

    def for_url(self, url: Url) -> str:
        """The proxy's URL, "" to go there directly."""
        proxy = {"http": self.http, "https": self.https}.get(url.scheme, "")
        return "" if not proxy or any(_covers(entry, url) for entry in self.direct) else proxy


def _with_scheme(proxy: str) -> str:
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _covers(entry: str, url: Url) -> bool:
    if entry == "*":
        return True
    host, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.startswith("[")):
        if int(port) != url.port:
            return False
        entry = host
    entry = entry.strip("[]").removeprefix("*").removeprefix(".")
    try:
        address = ipaddress.ip_address(url.host)
    except ValueError:
        return url.host == entry or url.host.endswith("." + entry)
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
