"""The console on a card of its own: DHCP and DNS from dnsmasq, files from nginx, nothing of the kernel's TCP/IP."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.preboot.console import Console
from bootwire.preboot.online import Card, Online
from namespaces import Namespace
from product import bzimage

pytestmark = pytest.mark.interop


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Namespace]:
    """A namespace with a bridge at 10.6.0.1, where dnsmasq and nginx serve."""
    tree = tmp_path / "tree"
    tree.mkdir()
    bzimage(tree / "linux")
    for path in [tmp_path, *tmp_path.parents[:2], *tree.rglob("*"), tree]:
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"daemon off; master_process off; user root; pid {tmp_path}/nginx.pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; server {{ listen 10.6.0.1:80; root {tree}; autoindex on; }} }}"
    )
    space = Namespace()
    for line in ("link add bwcbr type bridge", "address add 10.6.0.1/24 dev bwcbr", "link set bwcbr up"):
        space.run(f"ip {line}")
    dnsmasq = space.start(
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
        "--pid-file", "--no-ping", "--bind-interfaces", "--interface=bwcbr", "--dhcp-range=10.6.0.50,10.6.0.60",
        "--dhcp-option=option:domain-name,lab.example", "--dhcp-option=option:root-path,http://boot/",
        "--address=/boot.lab.example/10.6.0.1", f"--dhcp-leasefile={tmp_path}/leases", "--dhcp-boot=linux",
        stderr=subprocess.PIPE,
    )  # fmt: skip
    nginx = space.start("nginx", "-c", str(conf), "-e", "stderr", stderr=subprocess.PIPE)
    until = time.monotonic() + 20
    while not (space.run("ss -Hltn sport = :80") and space.run("ss -Hlun sport = :67")):
        assert time.monotonic() < until
        assert dnsmasq.poll() is None, dnsmasq.communicate()[1]
        assert nginx.poll() is None, nginx.communicate()[1]
    yield space
    for process in (dnsmasq, nginx):
        process.terminate()
        process.communicate(timeout=20)
    space.close()


def test_from_an_address_to_a_kernel(space: Namespace, tmp_path: Path) -> None:
    said: list[str] = []

    def go() -> bool:
        # the card is in the bridge from the first moment on: a program of the system puts it there
        tap = "ip link set bwcon master bwcbr"
        joining = subprocess.Popen(["sh", "-c", f"until {tap} 2>/dev/null; do sleep 0.02; done"])
        with Online(Card("tap:bwcon"), threaded=True) as online:
            assert joining.wait(20) == 0
            console = Console(online, say=said.append, environment={})
            try:
                return console.script([
                    "net", "hello", "ping 10.6.0.1 1", "arp", "route", "resolve boot",
                    "route add 10.9.0.0/16 10.6.0.1", "route del 10.9.0.0/16",
                    "set base=${root-path}; ls", "load kernel ${filename}; set cmdline=quiet",
                    f"boot save {tmp_path}/out", "sockets", "stats", "dhcp",
                ])  # fmt: skip
            finally:
                console.close()

    assert space.call(go), said[-12:]
    text = "\n".join(said)
    for expected in (
        "address 10.6.0.5", "name server 10.6.0.1", "search lab.example", "root-path = http://boot/", "DHCP option 53",
        "1 of 1 answered", "s ago", "10.6.0.0/24 on the link", "\n10.6.0.1\n", " linux", "kernel http://boot/linux",
        "ESTABLISHED", "received ", "for 3600 s",
    ):  # fmt: skip
        assert expected in text, (expected, text)
    assert (tmp_path / "out" / "cmdline").read_text() == "quiet\n"
