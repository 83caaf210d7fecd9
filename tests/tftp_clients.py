"""Debian's TFTP clients as commands."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

Command = Callable[[str, str, str, Path], list[str]]  # address, port, name, where to


def curl(*options: str) -> Command:
    return lambda at, port, name, to: ["curl", "-sSf", *options, "-o", str(to), f"tftp://{at}:{port}/{name}"]


def busybox(*options: str) -> Command:
    return lambda at, port, name, to: ["busybox", "tftp", "-g", *options, "-r", name, "-l", str(to), at, port]


def hpa(mode: str) -> Command:
    return lambda at, port, name, to: ["tftp", "-m", mode, at, port, "-c", "get", name, str(to)]


def atftp(*options: str) -> Command:
    words = [word for option in options for word in ("--option", option)]
    return lambda at, port, name, to: ["atftp", *words, "--get", "-r", name, "-l", str(to), at, port]


CLIENTS: dict[str, Command] = {
    "curl": curl(),
    "curl without options": curl("--tftp-no-options"),
    "curl 1468": curl("--tftp-blksize", "1468"),
    "curl 65464": curl("--tftp-blksize", "65464"),
    "busybox": busybox(),
    "busybox 1468": busybox("-b", "1468"),
    "busybox 65464": busybox("-b", "65464"),
    "tftp-hpa": hpa("binary"),
    "tftp-hpa netascii": hpa("netascii"),
    "atftp": atftp(),
    "atftp 8192": atftp("blksize 8192", "tsize"),
    "atftp 65464": atftp("blksize 65464"),
    "atftp windowsize 2": atftp("windowsize 2"),
    "atftp windowsize 16": atftp("blksize 1468", "windowsize 16", "tsize", "timeout 1"),
    "atftp windowsize 64": atftp("blksize 1468", "windowsize 64"),
}


def get(client: str, at: tuple[str, int], name: str, to: Path) -> bytes:
    """Fetch a file with one of CLIENTS, which has to exit with status 0; what arrived."""
    words = CLIENTS[client](at[0], str(at[1]), name, to)
    assert shutil.which(words[0]), f"{words[0]} is not installed"
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return to.read_bytes() if to.exists() else b""  # busybox makes no file of nothing
