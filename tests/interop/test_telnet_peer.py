"""Telnet with servers that others wrote: log in, run commands, resize, leave; over the kernel's TCP and ours."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.preboot.online import Card, Online
from bootwire.preboot.telnet import Session
from bootwire.preboot.transport import KernelTransport
from namespaces import Namespace

pytestmark = pytest.mark.interop

LOGIN = """#!/bin/sh
printf 'login: '; read name
stty -echo; printf 'Password: '; read word; stty echo; echo
[ "$name/$word" = root/secret ] || { echo 'Login incorrect'; exit 1; }
PS1='machine# ' exec /bin/sh -i
"""


INETD = """
import signal, socket, subprocess, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with socket.create_server(("", 23)) as listener:
    while True:
        connection, _ = listener.accept()
        with connection:
            subprocess.Popen(sys.argv[1:], stdin=connection, stdout=connection)
"""


@pytest.fixture(params=["busybox", "inetutils"])
def space(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Namespace]:
    """A namespace with a telnetd at port 23, whose login is a script: this machine's accounts are not ours."""
    login = tmp_path / "login"
    login.write_text(LOGIN)
    login.chmod(0o755)
    space = Namespace()
    command = {
        "busybox": ("busybox", "telnetd", "-F", "-l", str(login), "-p", "23"),
        "inetutils": (sys.executable, "-c", INETD, "/usr/sbin/telnetd", "-h", "-E", str(login)),
    }[request.param]
    process = space.start(*command, stderr=subprocess.PIPE)
    until = time.monotonic() + 20
    while not space.run("ss -Hltn sport = :23").strip():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
    yield space
    process.terminate()
    process.communicate(timeout=20)
    space.close()


def log_in(session: Session, word: str) -> None:
    session.expect("login: ")
    session.type("root\n")
    session.expect("Password: ")
    session.type(word + "\n")


def commands(session: Session) -> None:
    log_in(session, "secret")
    session.expect("machine# ")
    session.type("echo $((6 * 7)); stty size\n")
    assert "42\r\n" in session.expect("33 101")
    session.expect("machine# ")
    session.type("exit\n")
    while not session.over:
        session.receive(20)


def test_a_command_is_run_after_logging_in(space: Namespace) -> None:
    def go() -> None:
        with Session(KernelTransport(), "127.0.0.1", kind="vt102", columns=101, rows=33) as session:
            commands(session)

    space.call(go)


def test_over_our_own_tcp(space: Namespace) -> None:
    def go() -> None:
        with Online(Card("tap:bwtelnet", address="10.7.0.2/24")) as online:
            subprocess.run(["ip", "address", "add", "10.7.0.1/24", "dev", "bwtelnet"], check=True)
            with Session(online.transport(), "10.7.0.1", kind="vt102", columns=101, rows=33) as session:
                commands(session)

    space.call(go)


def test_a_wrong_password(space: Namespace) -> None:
    def go() -> None:
        with Session(KernelTransport(), "127.0.0.1") as session:
            log_in(session, "wrong")
            session.expect("Login incorrect")
            with pytest.raises(EOFError):
                session.expect("machine# ", 20)

    space.call(go)


def test_a_person_at_the_keyboard(space: Namespace) -> None:
    def go() -> str:
        keyboard, keys = os.pipe()
        screen, shown = os.pipe()
        os.write(keys, b"root\nsecret\necho $((6 * 7))\nexit\n")
        with Session(KernelTransport(), "127.0.0.1") as session:
            session.interact(keyboard, shown)
        os.close(shown)
        with os.fdopen(screen) as file:
            text = file.read()
        os.close(keyboard)
        os.close(keys)
        return text

    assert "42" in space.call(go)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        Session(KernelTransport(), "127.0.0.1", port)
