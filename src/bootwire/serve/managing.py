"""Asking a server that runs on this machine, over its management port: what `machines`, `arm` and their kin do."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bootwire.serve.mode import StartError

PORT = "127.0.0.1:8067"  # where the management port is unless --web says otherwise
TOKEN_FILE = "web-token"
SECONDS = 10.0  # that the server may take to answer

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def call(state: Path, where: str, path: str, body: Mapping[str, object] | None = None) -> Any:
    """The answer to a GET, or with `body` to a POST, as JSON. where: "ADDRESS:PORT".

    Raises StartError: no server there, the wrong token, or what the server says is wrong.
    """
    headers = {"Accept": "application/json"}
    token = state / TOKEN_FILE
    try:
        headers["Authorization"] = f"Bearer {token.read_text().strip()}"
    except FileNotFoundError:
        pass  # reading needs none on this machine
    except OSError as error:
        raise StartError(f"cannot read the token in {token}: {error.strerror}\n  run it as the server's user") from None
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{where}{path}", data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=SECONDS) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        said = error.read(2000).decode("utf-8", "replace").strip()
        raise StartError(said or f"the server answers {error.code}", 2 if error.code == 400 else 1) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        reason = getattr(reason, "strerror", None) or reason
        raise StartError(
            f"no server answers at {where} ({reason})\n  start one, or say where it is with --web"
        ) from None


def seconds(text: str) -> float:
    """ "90s", "30m", "2h", "7d" in seconds. Raises StartError (status 2)."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isascii() or not number.isdigit():
        raise StartError(f"{text} is no time: write 30m, 2h or 7d", 2)
    return float(number) * _UNITS[unit]


def table(rows: list[list[str]], head: tuple[str, ...]) -> list[str]:
    """Columns as wide as they must be."""
    lines = [list(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def ago(wall: float, now: Callable[[], float] = time.time) -> str:
    """ "3 min ago"."""
    gone = max(0, int(now() - wall))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if gone >= size:
            return f"{gone // size} {unit} ago"
    return f"{gone} s ago"
