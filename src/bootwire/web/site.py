"""The management port's application: what it consists of, opened and closed.

Each part brings its routes (`Part`): the views here, and whatever else manages something. All of them stand behind the
same guard.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from importlib import resources
from typing import Any, Protocol

import msgspec
from aiohttp import web

from bootwire.facts import Record
from bootwire.observe import jsonlines
from bootwire.observe.diff import differences
from bootwire.web import access
from bootwire.web.live import Hub

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode

BODY = 1 << 20
"""Octets of a request's body: a machine's record with a long script in it."""

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_SHELLS = ("/", "/wall", "/history", "/log", "/boots/{number:[0-9]{1,18}}", "/machines/{machine}",
           "/diff/{one:[0-9]{1,18}}/{other:[0-9]{1,18}}")  # fmt: skip


class Part(Protocol):
    """Something that has routes on the management port."""

    def add_to(self, application: web.Application) -> None:
        """Add its routes."""


class Boots(Protocol):
    """What the views ask for (`serve.timeline.Timeline`). Any of it may be asked from any thread."""

    def briefs(self) -> list[Json]: ...
    def changes(self) -> list[Json]: ...
    def boot(self, number: int) -> Json | None: ...
    def records(self, number: int) -> list[Record] | None: ...
    def history(self, words: str = "", before: int = 0, limit: int = 100, machine: str = "") -> list[Json]: ...


class Views:
    """The pages and what they ask for.

    capture  a boot's frames as a pcap file, None where there are none
    metrics  (text, content type) for Prometheus
    """

    def __init__(
        self,
        boots: Boots,
        hub: Hub,
        capture: Callable[[Json], bytes | None] | None = None,
        metrics: Callable[[], tuple[bytes, str]] | None = None,
    ) -> None:
        self._boots = boots
        self._hub = hub
        self._capture = capture
        self._metrics = metrics
        self._files = {
            file.name: file.read_bytes() for file in resources.files("bootwire.web").joinpath("static").iterdir()
        }

    def add_to(self, application: web.Application) -> None:
        get = application.router.add_get
        for path in _SHELLS:
            get(path, self._shell)
        get("/static/{name}", self._static)
        get("/api/live", self._hub.answer)
        get("/api/machines", self._machines)
        get("/api/machines/{machine}/boots", self._of_machine)
        get("/api/boots", self._history)
        get("/api/boots/{number:[0-9]{1,18}}", self._boot)
        get("/api/boots/{number:[0-9]{1,18}}/facts.jsonl", self._lines)
        get("/api/boots/{number:[0-9]{1,18}}/capture.pcap", self._pcap)
        get("/api/diff/{one:[0-9]{1,18}}/{other:[0-9]{1,18}}", self._diff)
        get("/api/log", self._log)
        get("/healthz", self._health)
        if self._metrics is not None:
            get("/metrics", self._prometheus)

    async def _shell(self, _: web.Request) -> web.Response:
        return self._file("index.html")

    async def _static(self, request: web.Request) -> web.Response:
        return self._file(request.match_info["name"])

    def _file(self, name: str) -> web.Response:
        if name not in self._files:
            raise web.HTTPNotFound(text="no such file\n")
        kind = _TYPES.get(name.rpartition(".")[2], "application/octet-stream")
        return web.Response(
            body=self._files[name], content_type=kind, charset="utf-8", headers={"Cache-Control": "no-cache"}
        )

    async def _machines(self, _: web.Request) -> web.Response:
        return answer(self._boots.briefs())

    async def _of_machine(self, request: web.Request) -> web.Response:
        machine = request.match_info["machine"].lower().replace("-", ":")
        before, limit = number(request, "before", 0), number(request, "limit", 50)
        live = [line for line in self._boots.briefs() if line["machine"] == machine]
        stored = await asyncio.to_thread(self._boots.history, "", before, limit, machine)
        return answer(merged([] if before else live, stored))

    async def _history(self, request: web.Request) -> web.Response:
        words = request.query.get("q", "")[:200]
        before, limit = number(request, "before", 0), number(request, "limit", 100)
        return answer(await asyncio.to_thread(self._boots.history, words, before, limit))

    async def _boot(self, request: web.Request) -> web.Response:
        return answer(await self._found(request.match_info["number"]))

    async def _found(self, text: str) -> Json:
        boot = await asyncio.to_thread(self._boots.boot, int(text))
        if boot is None:
            raise web.HTTPNotFound(text=f"there is no boot {text}: it was forgotten, or never was\n")
        return boot

    async def _lines(self, request: web.Request) -> web.Response:
        text = request.match_info["number"]
        records = await asyncio.to_thread(self._boots.records, int(text))
        if records is None:
            raise web.HTTPNotFound(text=f"there is no boot {text}\n")
        body = "".join(jsonlines.line(record) + "\n" for record in records)
        return download(body.encode(), "application/jsonl", f"boot-{text}.jsonl")

    async def _pcap(self, request: web.Request) -> web.Response:
        boot = await self._found(request.match_info["number"])
        frames = await asyncio.to_thread(self._capture, boot) if self._capture else None
        if frames is None:
            raise web.HTTPNotFound(text="no frames of that boot are kept (any more)\n")
        return download(frames, "application/vnd.tcpdump.pcap", f"boot-{boot['boot']}.pcap")

    async def _diff(self, request: web.Request) -> web.Response:
        one, other = await self._found(request.match_info["one"]), await self._found(request.match_info["other"])
        return answer({"one": _named(one), "other": _named(other), "rows": differences(one, other)})

    async def _log(self, _: web.Request) -> web.Response:
        return answer(self._hub.log())

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _prometheus(self, _: web.Request) -> web.Response:
        assert self._metrics is not None
        body, kind = self._metrics()
        return web.Response(body=body, headers={"Content-Type": kind})


class Site:
    """Listens from `open` to `close`. parts: what it consists of; secret: the token."""

    def __init__(self, parts: Iterable[Part], secret: str, hub: Hub) -> None:
        self._hub = hub
        application = web.Application(middlewares=[access.guard(secret)], client_max_size=BODY)
        application.router.add_get(access.SIGN_IN, _sign_in_page)

        async def sign_in(request: web.Request) -> web.StreamResponse:
            return await access.sign_in(request, secret)

        application.router.add_post(access.SIGN_IN, sign_in)
        for part in parts:
            part.add_to(application)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1)
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def open(self, address: str, port: int) -> None:
        """Listen; port 0 takes any (`port` tells). Raises OSError."""
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, address, port)
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        self._task = asyncio.create_task(self._hub.run(), name="live views")

    async def close(self) -> None:
        self._hub.close()
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._runner.cleanup()


def answer(value: object, status: int = 200) -> web.Response:
    """`value` as JSON."""
    return web.Response(body=_encode(value), status=status, content_type="application/json")


def download(body: bytes, kind: str, name: str) -> web.Response:
    """A file to keep; `name` is ours."""
    return web.Response(
        body=body, headers={"Content-Type": kind, "Content-Disposition": f'attachment; filename="{name}"'}
    )


def number(request: web.Request, name: str, default: int) -> int:
    """A number of the query. Raises HTTPBadRequest."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise web.HTTPBadRequest(text=f"{name} is a number, not {text[:40]!r}\n")
    return int(text)


def merged(live: list[Json], stored: list[Json]) -> list[Json]:
    """Lines of boots, the newest first, each once: what is live counts."""
    numbers = {line["boot"] for line in live}
    lines = live + [line for line in stored if line["boot"] not in numbers]
    return sorted(lines, key=lambda line: int(line["boot"]), reverse=True)


def _named(boot: Json) -> Json:
    return {name: boot[name] for name in ("boot", "machine", "client", "started", "state")}


async def _sign_in_page(request: web.Request) -> web.Response:
    page = resources.files("bootwire.web").joinpath("static", "sign-in.html").read_text()
    wrong = "That is not the token." if "wrong" in request.query else ""
    return web.Response(text=page.replace("{wrong}", wrong), content_type="text/html")
