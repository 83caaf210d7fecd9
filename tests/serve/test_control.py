"""The door in the state directory: who gets through, and what becomes of bad questions."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bootwire.serve.control import LIMIT, NAME, Control, NotReached, ask


async def _echo(question: Mapping[str, Any]) -> dict[str, Any]:
    if question.get("text") == "bad":
        raise ValueError("not that one")
    return {"said": question.get("text")}


def with_door(state: Path, check: Callable[[], Awaitable[None]]) -> None:
    async def go() -> None:
        control = Control(state, {"echo": _echo})
        await control.open()
        try:
            await check()
        finally:
            await control.close()

    asyncio.run(go())


def raw(state: Path, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.settimeout(10)
        made.connect(str(state / NAME))
        made.sendall(line)
        return made.recv(LIMIT)


def test_a_question_is_answered(tmp_path: Path) -> None:
    async def check() -> None:
        assert await asyncio.to_thread(ask, tmp_path, {"do": "echo", "text": "é\n"}, 10.0) == {"said": "é\n"}

    with_door(tmp_path, check)


def test_it_is_the_owners_alone_and_gone_afterwards(tmp_path: Path) -> None:
    async def check() -> None:
        assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600

    with_door(tmp_path, check)
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"\n", "not a line of JSON"),
        (b"{\n", "not a line of JSON"),
        (b"[" * 50_000 + b"\n", "not a line of JSON"),
        (b"\xff\xfe\n", "not a line of JSON"),
        (b"[]\n", "knows nothing of that"),
        (b'{"do": "dance"}\n', "knows nothing of that"),
        (b'{"do": ["echo"]}\n', "knows nothing of that"),
        (b'{"do": "echo", "text": "bad"}\n', "not that one"),
    ],
)
def test_a_bad_question_gets_one_clear_error(tmp_path: Path, line: bytes, error: str) -> None:
    async def check() -> None:
        answer = json.loads(await asyncio.to_thread(raw, tmp_path, line))
        assert error in answer["error"]

    with_door(tmp_path, check)


def test_a_line_without_an_end_is_cut_off(tmp_path: Path) -> None:
    async def check() -> None:
        with contextlib.suppress(ConnectionError):  # or an end without a word
            assert await asyncio.to_thread(raw, tmp_path, b"x" * (4 * LIMIT)) == b""
        assert await asyncio.to_thread(ask, tmp_path, {"do": "echo", "text": "on"}, 10.0) == {"said": "on"}

    with_door(tmp_path, check)


def test_what_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(tmp_path / NAME))

    async def check() -> None:
        assert await asyncio.to_thread(ask, tmp_path, {"do": "echo", "text": 1}, 10.0) == {"said": 1}

    with_door(tmp_path, check)


def test_a_second_server_does_not_take_the_first_ones_door(tmp_path: Path) -> None:
    async def check() -> None:
        with pytest.raises(OSError, match=r".") as raised:
            await Control(tmp_path, {}).open()
        assert raised.value.errno == errno.EADDRINUSE
        assert await asyncio.to_thread(ask, tmp_path, {"do": "echo", "text": 1}, 10.0) == {"said": 1}

    with_door(tmp_path, check)


def test_without_a_server_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotReached, match="takes orders") as raised:
        ask(tmp_path, {"do": "echo"}, 1.0)
    assert "--bootinfo" in raised.value.fix
