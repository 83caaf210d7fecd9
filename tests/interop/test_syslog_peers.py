"""The syslog receiver of the running product, sent to by util-linux's logger and by BusyBox's syslogd."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from good_client import GoodClient
from namespaces import Namespace, pair
from product import Server

pytestmark = pytest.mark.interop


@pytest.fixture
def machine(kernel: str, state: tuple[str, ...]) -> Iterator[tuple[Namespace, Server, str]]:
    """A host whose address the server knows, the server, and the machine's MAC."""
    with pair() as (one, two):
        server = Server(one, kernel, *state)
        server.ready()
        server.until("listening", service="syslog")

        def boot() -> None:
            with contextlib.closing(GoodClient("there")) as client:
                client.dhcp()
                client.pxe()

        two.call(boot)
        yield two, server, server.until("discover")["machine"]
        assert server.end()[0] == 0


FORMS = {
    "RFC 3164": ("--rfc3164",), "RFC 5424": ("--rfc5424",), "RFC 5424, no time": ("--rfc5424=notime,nohost",),
    "RFC 5424, structured": (
        "--rfc5424", "--sd-id", "ours@32473", "--sd-param", 'quoted="a \\"b\\" \\] c"', "--msgid", "step",
    ),
}  # fmt: skip


def test_a_line_is_told_whatever_form_logger_gives_it(machine: tuple[Namespace, Server, str]) -> None:
    host, server, mac = machine
    for name, form in FORMS.items():
        text = f"partitioning sda: 1 of 3 [{name}] grün"
        sent = ["logger", "--server", "10.9.0.1", "--udp", "--port", "514", "--tag", "anaconda", "--id=42",
                "--priority", "daemon.err", *form, text]  # fmt: skip
        host.call(lambda sent=sent: subprocess.run(sent, check=True))  # type: ignore[misc]
        assert server.until("console", text=text)["machine"] == mac


def test_an_installers_own_syslogd_forwards_to_us(machine: tuple[Namespace, Server, str], tmp_path: Path) -> None:
    """Debian's installer and many small systems have BusyBox's, which keeps what it is told on /dev/log, and sends it
    on. /dev is another one here, so that nothing of this machine's is touched."""
    host, server, mac = machine
    script = """
    mount -t tmpfs none /dev && ln -s /proc/self/fd /dev/fd && mknod -m 666 /dev/null c 1 3
    busybox syslogd -n -L -R 10.9.0.1:514 -O /dev/messages & daemon=$!
    until [ -S /dev/log ]; do :; done
    busybox logger -t main-menu -p daemon.info 'Menu item partman selected'
    until grep -qs partman /dev/messages; do :; done
    kill $daemon
    """
    command = ["unshare", "--mount", "--pid", "--kill-child", "--propagation", "private", "sh", "-ec", script]
    host.call(lambda: subprocess.run(command, check=True, timeout=30))
    console = server.until("console", machine=mac)
    assert console["text"].endswith("Menu item partman selected")
    assert console["peer"] == "10.9.0.2"
