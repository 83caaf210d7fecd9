"""Requests to other servers for the operator's images: one session, one set of rules about where they may go.

Proxies are the operator's word (--upstream-proxy) or the environment's; https is verified; redirects are followed a few
times, never from https to http. What an answer of somebody's service names may not lead into this machine or to a
cloud's metadata: every address that is connected to is looked at, after each redirect, too.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from bootwire.wire.text import printable

if TYPE_CHECKING:
    import aiohttp
    import yarl

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0  # an upstream that sends nothing for so long is dead
BUFFER = 64 * 1024  # octets aiohttp reads ahead; it stops at twice as many
REDIRECTS = 5

METADATA = ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
"""Where clouds tell a machine its secrets: AWS, GCP and OpenStack; AWS over IPv6; Alibaba; Azure; Oracle."""


NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1: an IPv4 address in its last 32 bits


class UpstreamFailed(Exception):
    """The upstream cannot give (more of) what was asked; the text says why, to go behind the host's name."""


@dataclass(frozen=True, slots=True)
class Settings:
    """proxy: URL, "" for the environment's (http_proxy …). ca: file of certificates to trust as well, "" for none.

    allowed: hosts ("host" or "host:port", as a URL writes them) that anybody's answer may name, wherever they are.
    """

    proxy: str = ""
    ca: str = ""
    allowed: tuple[str, ...] = ()


class Upstreams:
    """Asks other servers. One asyncio loop."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def ask(
        self, method: str, location: str, headers: Mapping[str, str] | None = None, *, trusted: bool = True
    ) -> aiohttp.ClientResponse:
        """One answer, redirects followed. Raises UpstreamFailed: no answer, or one from where we do not go.

        trusted: the location is the operator's own word; else it came from somebody's service
        """
        import aiohttp
        import yarl

        proxy: str | None = None
        try:
            url = yarl.URL(location, encoded=_ENCODED.fullmatch(location) is not None)
            for _ in range(REDIRECTS + 1):
                guarded = not trusted and not self._allows(url)
                if guarded and (why := forbidden(url.host or "")):
                    raise UpstreamFailed(f"is {why}, where a boot service's answer may not lead (--allow-upstream)")
                proxy = self._proxy(url)
                if guarded and proxy:  # which resolves the name itself
                    await _look_at(url)
                session = self._session(guarded and not proxy)
                response = await session.request(
                    method, url, headers=dict(headers or {}), allow_redirects=False, proxy=proxy
                )
                if proxy and response.status == 407:
                    response.close()
                    raise UpstreamFailed(f"cannot be asked: the proxy {_shown(proxy)} wants a password")
                if response.status not in (301, 302, 303, 307, 308) or not (to := response.headers.get("Location")):
                    return response
                response.close()
                before, url = url.scheme, url.join(yarl.URL(to))
                if before == "https" and url.scheme != "https":
                    raise UpstreamFailed("redirects from https to http")
                if url.scheme not in ("http", "https"):
                    raise UpstreamFailed(f"redirects to {printable(url.scheme, 20)}")
        except TimeoutError:
            raise UpstreamFailed("did not answer in time") from None
        except aiohttp.ClientConnectorCertificateError as error:
            verdict = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
            raise UpstreamFailed(f"has a certificate that is not trusted: {printable(verdict)}") from None
        except aiohttp.ClientProxyConnectionError as error:
            why = _reason(error)
            raise UpstreamFailed(f"cannot be asked: the proxy {_shown(proxy)} cannot be reached: {why}") from None
        except aiohttp.ClientHttpProxyError as error:
            why = f"{error.status} {printable(error.message, 60)}"
            raise UpstreamFailed(f"cannot be asked: the proxy {_shown(proxy)} answers {why}") from None
        except aiohttp.ClientConnectorError as error:
            raise UpstreamFailed(f"cannot be reached: {_reason(error)}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            said = getattr(error, "message", "") or str(error) or type(error).__name__
            raise UpstreamFailed(f"cannot be asked: {printable(said.partition(chr(10))[0], 160)}") from None
        raise UpstreamFailed(f"redirects more than {REDIRECTS} times")

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _allows(self, url: yarl.URL) -> bool:
        """Whether the operator allows this very host, whatever its address."""
        return not {url.host or "", f"{url.host}:{url.port}"}.isdisjoint(self.settings.allowed)

    def _proxy(self, url: yarl.URL) -> str | None:
        """The operator's proxy, or the environment's for this URL."""
        if self.settings.proxy:
            return self.settings.proxy
        if url.host and proxy_bypass(f"{url.host}:{url.port}"):
            return None
        return getproxies().get(url.scheme) or None

    def _session(self, guarded: bool) -> aiohttp.ClientSession:
        import aiohttp  # a third of a second that only URLs need

        session = self._sessions.get(guarded)
        if session is None:
            resolver = _guarded_resolver() if guarded else None
            tls: ssl.SSLContext | bool = trust(self.settings.ca) if self.settings.ca else True
            session = self._sessions[guarded] = aiohttp.ClientSession(
                auto_decompress=False,
                connector=aiohttp.TCPConnector(limit=0, resolver=resolver, ssl=tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity", "User-Agent": "bootwire"},
                read_bufsize=BUFFER,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS),
                trust_env=True,
            )
        return session


def trust(ca: str) -> ssl.SSLContext:
    """The system's certificates and those in a file. Raises OSError: there are none in it."""
    tls = ssl.create_default_context()
    tls.load_verify_locations(ca)
    return tls


def check(settings: Settings) -> str:
    """What is wrong with the settings, for a person; "" if nothing is."""
    if settings.proxy:
        parts = urlsplit(settings.proxy)
        if parts.scheme != "http" or not parts.hostname:
            return f"--upstream-proxy {_shown(settings.proxy)} is no URL of an HTTP proxy\n  try  http://HOST:PORT"
    if settings.ca:
        try:
            trust(settings.ca)
        except OSError as error:
            why = "there is no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
            return f"--upstream-ca {settings.ca}: {why}\n  it should hold certificates in PEM"
    return ""


def _shown(proxy: str | None) -> str:
    """A proxy's host and port, without the password that may stand before them."""
    return printable(urlsplit(proxy or "").netloc.rpartition("@")[2] or (proxy or ""))


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """Why no connection came about, in the system's words; asyncio's own repeat the address instead."""
    number = error.os_error.errno or 0  # of getaddrinfo negative
    return printable(os.strerror(number) if number > 0 else error.os_error.strerror or str(error))


async def _look_at(url: yarl.URL) -> None:
    """Raises UpstreamFailed where a name leads to what nobody's answer may lead to, as far as we can resolve it."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host or "", url.port, type=socket.SOCK_STREAM)
    except OSError:
        return  # behind the proxy there are names that only it knows
    for *_, address in found:
        if why := forbidden(str(address[0])):
            raise UpstreamFailed(f"is {why}, where a boot service's answer may not lead (--allow-upstream)")


def host_of(location: str) -> str:
    """The host of a URL, fit for a sentence."""
    return printable(urlsplit(location).hostname or "")


def forbidden(host: str) -> str:
    """Why nobody's answer may lead to an address, in words; "" where it may, and for names that are to be resolved."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return "this machine itself" if host.lower().rstrip(".") in ("localhost", "ip6-localhost") else ""
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = inside or address
    if str(address) in METADATA:
        return "a cloud's metadata service"
    if address.is_loopback or address.is_unspecified or (address.version == 4 and int(address) >> 24 == 0):
        return "this machine itself"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast or str(address) == "255.255.255.255":
        return "a multicast address"
    return ""


def _guarded_resolver() -> aiohttp.abc.AbstractResolver:
    import aiohttp

    class Guarded(aiohttp.ThreadedResolver):
        """Resolves names, and fails where an address is one that nobody's answer may lead to."""

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[aiohttp.abc.ResolveResult]:
            found: Sequence[aiohttp.abc.ResolveResult] = await super().resolve(host, port, family)
            for one in found:
                if why := forbidden(one["host"]):
                    raise OSError(None, f"{printable(host, 60)} is {why}, where a boot service's answer may not lead")
            return list(found)

    return Guarded()


_ENCODED = re.compile(r"[!-~]+")
