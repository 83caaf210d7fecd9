"""Connections that wait for a decision: given back when it is known, closed when the server ends or too many wait."""

from __future__ import annotations

import asyncio
import socket

import pytest

from bootwire.facts import Fact, Warned
from bootwire.serve import waiting
from bootwire.serve.content import Later
from bootwire.serve.waiting import Waiting
from bootwire.wire.http import Request

REQUEST = Request("GET", "/boot.ipxe", (), {})


def test_a_connection_comes_back_with_its_request_when_its_answer_is_known() -> None:
    async def story() -> None:
        known = asyncio.Event()
        back: asyncio.Queue[tuple[socket.socket, bytes, Request]] = asyncio.Queue()
        ours, theirs = socket.socketpair()
        held = Waiting(asyncio.get_running_loop(), lambda fact: None, lambda *given: back.put_nowait(given))

        async def wait() -> None:
            await known.wait()

        with ours, theirs:
            held.take(ours, REQUEST, Later(wait), b"more")
            await asyncio.sleep(0)
            assert back.empty()
            known.set()
            assert await asyncio.wait_for(back.get(), 20) == (ours, b"more", REQUEST)
            await held.close()

    asyncio.run(story())


def test_the_end_of_the_server_closes_those_that_wait() -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        held = Waiting(asyncio.get_running_loop(), lambda fact: None, lambda *given: pytest.fail("given back"))
        with theirs:
            held.take(ours, REQUEST, Later(asyncio.Event().wait), b"")
            await asyncio.sleep(0)
            await held.close()
            theirs.settimeout(20)
            assert theirs.recv(1) == b""

    asyncio.run(story())


def test_one_too_many_is_closed_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "WAITING", 1)

    async def story() -> None:
        facts: list[Fact] = []
        first, second = socket.socketpair(), socket.socketpair()
        held = Waiting(asyncio.get_running_loop(), facts.append, lambda *given: pytest.fail("given back"))
        with first[1], second[1]:
            held.take(first[0], REQUEST, Later(asyncio.Event().wait), b"")
            held.take(second[0], REQUEST, Later(asyncio.Event().wait, "52:54:00:12:34:56"), b"")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            second[1].settimeout(20)
            assert second[1].recv(1) == b""
            assert [(type(fact), fact.machine) for fact in facts] == [(Warned, "52:54:00:12:34:56")]
            await held.close()

    asyncio.run(story())
