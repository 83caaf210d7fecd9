"""The management port of a server that is told facts by the test: a real journal, store, timeline and site."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from bootwire.desk import Desk, Underway
from bootwire.facts import Fact
from bootwire.policy.target import Image, Target
from bootwire.serve.journal import Journal
from bootwire.serve.mode import Plain
from bootwire.serve.seals import Seals
from bootwire.serve.states import States
from bootwire.web.access import TOKEN_FILE
from bootwire.web.manage import Manage

PATIENCE = 20.0  # seconds


def installing(name: str) -> Target:
    """What a profile that installs gives."""
    return Target("everybody", name, kernel=Image("/k"), variables={"install": True, "done": "phone-home"})


class Running:
    """url: where it is, without a slash at the end; underway: what `progress` tells.

    profiles  that install: machines can be armed with them; None for a server that gives everybody the same
    """

    def __init__(
        self, folder: Path, address: str = "127.0.0.1", port: int = 0, profiles: tuple[str, ...] | None = None
    ) -> None:
        self._profiles = profiles
        self.journal = Journal(None, capacity=100_000)
        self.record = self.journal.record
        self.underway: Underway = []
        self._folder = folder
        self._where = f"{address}:{port}"
        self._ready: Future[str] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        self.url = self._ready.result(PATIENCE).rstrip("/")

    @property
    def token(self) -> str:
        return (self._folder / TOKEN_FILE).read_text().strip()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def tell(self, facts: list[Fact]) -> None:
        for fact in facts:
            self.record(fact)

    def call(self, work: Any) -> Any:
        """Have a coroutine run beside the site."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def close(self) -> None:
        """Once is enough, twice does no harm."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(PATIENCE)

    async def _run(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            self.desk = Desk(self.journal, self._folder, self._where)
            manage = Manage(self._with_states(), lambda: self._profiles or (), list, list)
            self._ready.set_result(await self.desk.open(self._progress, [manage]))
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self.journal.start()
        await self._ended.wait()
        await self.desk.close()
        await asyncio.to_thread(self.journal.close)
        await asyncio.to_thread(self.desk.finish)

    def _with_states(self) -> States | None:
        if self._profiles is None:
            return None
        targets = {name: installing(name) for name in self._profiles}
        self.states = States(
            Plain(installing("debian")), self.desk.store, Seals(bytes(32)), lambda name, _: targets.get(name),
            self.journal.record,
        )  # fmt: skip
        return self.states

    async def _progress(self) -> Underway:
        return list(self.underway)


@contextlib.contextmanager
def running(
    folder: Path, address: str = "127.0.0.1", port: int = 0, profiles: tuple[str, ...] | None = None
) -> Iterator[Running]:
    site = Running(folder, address, port, profiles)
    try:
        yield site
    finally:
        site.close()
