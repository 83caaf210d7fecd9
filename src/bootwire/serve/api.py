"""API mode: an HTTP service decides what each machine boots; a drop-in for Pixiecore's API, asked without waiting.

One call a boot where possible: what was answered at the DISCOVER holds for the rest of that boot. A slow or dead
service holds up nobody but the machine that is being asked for, and where it had an answer for that machine before,
that one counts. Every outcome is a fact with its reason.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bootwire.assets.catalog import Blob
from bootwire.engine import Ns, S
from bootwire.facts import ServiceAsked
from bootwire.policy import boot_api
from bootwire.policy.boot_api import Wrong
from bootwire.policy.go_template import TemplateError
from bootwire.policy.target import Decision, Image, Silence, Target, Traits
from bootwire.serve.content import Content, Later, Missing, Record, Reply, Upstream
from bootwire.serve.images import Images
from bootwire.serve.mode import Decider, House, Link, RenderError, Room, StartError
from bootwire.serve.seals import Seals
from bootwire.wire.text import printable

if TYPE_CHECKING:
    import aiohttp

CALLS = 64  # to the service at a time; further ones wait their turn, within their own time
REDIRECTS = 3  # reliability: few, and never to another scheme
MACHINES = 4_096  # answers remembered, the one asked for longest ago forgotten first

_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0}

BOOT: Ns = 600 * S
"""For how long an answer holds for what comes later in the same boot: the boot script, files, a restart of iPXE."""
ATTEMPT: Ns = 60 * S
"""For how long an answer that no script was made of yet holds for further DISCOVERs: as long as PXE 2.1's retries."""
AGAIN: Ns = 2 * S
"""For how long an answer holds for bootinfo: a machine that asks again later than a client repeats a lost question
(emuboot, 2 s) may have been told to, since it is to do something else."""
NO: Ns = 5 * S
"""How long a "no" holds: a repeat of the same DISCOVER needs no further call, and who is added is soon booted."""
FAILED: Ns = 2 * S
"""How long a failure of the service holds: the machine's next DISCOVER, seconds later, asks again."""


@dataclass(frozen=True, slots=True)
class Service:
    """The service, as the operator gave it.

    url      http(s) prefix; /v1/boot/<mac> is added
    timeout  seconds that one answer may take, waiting for its turn included
    plain    tell it the MAC alone, as Pixiecore does
    files    whether its answers may name files of this machine (file://)
    """

    url: str
    timeout: float = 5.0
    plain: bool = False
    files: bool = True


@dataclass(slots=True)
class _Known:
    """What was answered for a machine. used: a boot script was made of it."""

    decision: Decision
    at: Ns
    holds: Ns
    used: bool = False


class ApiDecider:
    """Asks the service; remembers what it said. `known` and `render` may be called from any thread."""

    smbios = False

    def __init__(self, service: Service, clock: Callable[[], Ns] = time.monotonic_ns) -> None:
        self._service = service
        self.record: Record = lambda fact: None  # until the server runs
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._good: OrderedDict[str, Target] = OrderedDict()
        self._lock = threading.Lock()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(CALLS)
        self._session: aiohttp.ClientSession | None = None

    def known(self, traits: Traits) -> Decision | None:
        with self._lock:
            known = self._known.get(traits.machine)
            if known is None:
                return None
            age = self._clock() - known.at
            begins = traits.stage == "discover" and (known.used or age >= ATTEMPT)
            again = traits.stage == "bootinfo" and age >= AGAIN
            if age >= known.holds or again or (begins and isinstance(known.decision, Target)):
                return None
            return known.decision

    async def ask(self, traits: Traits) -> None:
        task = self._asking.get(traits.machine)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._find_out(traits))
            self._asking[traits.machine] = task
            task.add_done_callback(lambda _: self._asking.pop(traits.machine, None))
        await asyncio.shield(task)

    def render(self, target: Target, traits: Traits, link: Link) -> Target:
        with self._lock:
            if (known := self._known.get(traits.machine)) is not None:
                known.used = True
        names = {"other": 0}

        def give(location: str) -> str:
            if wrong := self._forbidden((Image(location),)):
                raise TemplateError(wrong)
            names["other"] += 1
            return link(Image(location), f"other/{names['other'] - 1}")

        home = {"PHONE_HOME": str(target.variables.get("phone_home", ""))}
        try:
            cmdline = boot_api.expand_cmdline(target.cmdline, self._service.url, {"URL": give, "ID": give}, home)
        except TemplateError as error:
            raise RenderError(f"the boot service's cmdline cannot be used: {error}") from None
        return replace(target, cmdline=cmdline)

    async def close(self) -> None:
        for task in self._asking.values():
            task.cancel()
        if self._session is not None:
            await self._session.close()

    # --- the call -------------------------------------------------------------------------------------------------

    async def _find_out(self, traits: Traits) -> None:
        began = self._clock()
        found: Decision | Wrong
        try:
            async with asyncio.timeout(self._service.timeout), self._turns:
                found = await self._call(traits)
        except TimeoutError:
            found = Wrong(f"no answer within {self._service.timeout:g} s")
        self._take(traits.machine, found, (self._clock() - began) / S)

    def _take(self, machine: str, found: Decision | Wrong, seconds: float) -> None:
        """Remember an outcome and tell it."""
        outcome, because = "boot", ""
        holds, decision = BOOT, found
        if isinstance(found, Silence):
            outcome, because, holds = "no", found.because, NO
            self._good.pop(machine, None)
        elif isinstance(found, Target):
            because = f"{found.what}: {found.because}"
            _put(self._good, machine, found)
        else:
            good = self._good.get(machine)
            because = found.because
            if good is None:
                outcome, holds = "failed", FAILED
                decision = Silence(f"the boot service could not say what it boots: {found.because}")
            else:
                outcome = "last good"
                decision = replace(good, because=f"what the boot service said last, since now: {found.because}")
        assert not isinstance(decision, Wrong)
        with self._lock:
            _put(self._known, machine, _Known(decision, self._clock(), holds))
        host = printable(urlsplit(self._service.url).netloc.rpartition("@")[2])
        self.record(ServiceAsked(machine, host, outcome, round(seconds, 3), because))

    async def _call(self, traits: Traits) -> Decision | Wrong:
        import aiohttp  # a third of a second that only this mode needs
        import yarl

        url = boot_api.boot_url(self._service.url, traits.machine)
        headers = {}
        if not self._service.plain and (query := boot_api.about(traits)):
            url += ("&" if "?" in url else "?") + query
            headers = {"X-Bootwire-Stage": traits.stage, "X-Bootwire-Arch": traits.platform or "unknown"}
        try:
            response = await self._client().get(
                yarl.URL(url, encoded=True), headers=headers, max_redirects=REDIRECTS + 1, allow_redirects=True
            )
            async with response:
                if response.status in (204, 404):
                    return Silence(f"the boot service says no ({response.status})")
                if response.status != 200:
                    return Wrong(f"it answers {response.status} {printable(response.reason or '', 60)}")
                body = await _read(response)
        except _Elsewhere:
            return Wrong("it redirects to another scheme")
        except aiohttp.TooManyRedirects:
            return Wrong(f"it redirects more than {REDIRECTS} times")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Wrong(f"it cannot be asked: {printable(str(error) or type(error).__name__, 160)}")
        found = boot_api.read_answer(body, self._service.url)
        if isinstance(found, Target):
            images = (*([found.kernel] if found.kernel is not None else []), *found.initrds)
            if wrong := self._forbidden(images):
                return Wrong(wrong)
        return found

    def _forbidden(self, images: Sequence[Image]) -> str:
        """Why an answer may not name these, or ""."""
        path = next((image.location for image in images if image.location.startswith("/")), "")
        if not path or self._service.files:
            return ""
        return f"it names the file {printable(path, 80)} of this machine, which --no-file-urls forbids"

    def _client(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CALLS),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "bootwire", "Accept": "application/json"},
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=True,
                trace_configs=[_redirects()],
            )
        return self._session


class ApiMode:
    """`bootwire api URL`. images: what links are made by, with `trusted` False.

    Raises StartError (status 2) for a URL that is none.
    """

    def __init__(self, service: Service, images: Images) -> None:
        if not _is_prefix(service.url):
            raise StartError(f"{service.url} is no http or https URL to put /v1/boot/<mac> behind", 2)
        self._decider = ApiDecider(service)
        self.decider: Decider = self._decider
        self.catalog: Mapping[str, Blob] = {}
        self.rooms: Mapping[str, Room] = {"image": images.room}
        self.lines: Sequence[str] = (f"Service   {service.url} says what each machine boots",)
        self.warnings: Sequence[str] = ()
        self.upstreams = images.upstreams
        self.seals: Seals | None = images.seals
        self.multicast = False
        self._images = images

    def link(self, machine: str, base: str) -> Link:
        return self._images.link(machine, base)

    def give(self, image: Image, name: str, machine: str) -> Content | Missing | Reply | Upstream | Later:
        return self._images.give(image, name, machine)

    def named(self, profile: str, traits: Traits) -> Target | None:
        return None

    def installing(self) -> Sequence[str]:
        return ()

    def open(self, house: House) -> None:
        self._decider.record = house.record
        self._images.open(house)

    async def reload(self) -> None:
        pass

    async def close(self) -> None:
        await self._decider.close()
        await self._images.close()


class _Elsewhere(Exception):
    """A redirect leads to another scheme; nobody was asked there."""


def _redirects() -> aiohttp.TraceConfig:
    """Looks at each redirect before it is followed."""
    import aiohttp
    import yarl

    async def look(_: object, context: object, step: aiohttp.TraceRequestRedirectParams) -> None:
        location = step.response.headers.get("Location") or step.response.headers.get("URI") or ""
        if step.response.url.join(yarl.URL(location)).scheme != step.response.url.scheme:
            step.response.close()
            raise _Elsewhere

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(look)
    return trace


def _is_prefix(url: str) -> bool:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets without an IPv6 address, a port beyond 65535
        return False
    return bool(usable) and not parts.query and not parts.fragment


def seconds(text: str) -> float:
    """ "5", "5s", "500ms", "1m" (as Go writes durations) in seconds. Raises StartError (status 2)."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(ms|s|m|)", text.strip())
    if match is None or not 0.05 <= (value := float(match[1]) * _UNITS[match[2]]) <= 3600:
        raise StartError(f"{text} is no time between 50ms and 3600s", 2)
    return value


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, or the first octets of one that is too long anyway."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > boot_api.MAX_ANSWER:
            break
    return bytes(body)


def _put(entries: OrderedDict[str, _Known] | OrderedDict[str, Target], machine: str, value: object) -> None:
    entries[machine] = value  # type: ignore[assignment]
    entries.move_to_end(machine)
    while len(entries) > MACHINES:
        entries.popitem(last=False)
