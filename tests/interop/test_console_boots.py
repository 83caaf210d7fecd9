"""The console from an address to a kernel: on a card of its own with dnsmasq and nginx; a FreeBSD tree over HTTP."""

from __future__ import annotations

import gzip
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import probe_kernel
from bootwire.preboot.console import Console
from bootwire.preboot.online import Card, Online
from bootwire.serve.answers import Answers
from bootwire.serve.files import PublishedDirectory
from http_rig import served
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
        "address 10.6.0.", " from 10.6.0.1 for 3600 s", "name server 10.6.0.1", "search lab.example",
        "root-path = http://boot/", "DHCP option 53",
        "1 of 1 answered", "s ago", "10.6.0.0/24 on the link", "\n10.6.0.1\n", " linux", "kernel http://boot/linux",
        "ESTABLISHED", "received ",
    ):  # fmt: skip
        assert expected in text, (expected, text)
    assert (tmp_path / "out" / "cmdline").read_text() == "quiet\n"


def test_a_freebsd_tree_over_http(tmp_path: Path) -> None:
    """Kernel and modules, compressed and plain, by the tree's own loader.conf and the directory beside it."""
    boot = tmp_path / "tree" / "boot"
    for name in ("kernel", "modules", "loader.conf.d"):
        (boot / name).mkdir(parents=True)
    (tmp_path / "build").mkdir()
    octets = probe_kernel.module(tmp_path / "build")
    (boot / "kernel" / "kernel.gz").write_bytes(gzip.compress(probe_kernel.kernel(tmp_path / "build")))
    (boot / "kernel" / "m.ko").write_bytes(octets)
    (boot / "modules" / "packed.ko.gz").write_bytes(gzip.compress(octets))
    (boot / "mfsroot.gz").write_bytes(gzip.compress(b"disk" * 1000))
    (boot / "loader.conf").write_text(
        'm_load="YES"\npacked_load="YES"\nmfsroot_load="YES"\nmfsroot_type="mfs_root"\nmfsroot_name="/boot/mfsroot"\n'
    )
    (boot / "loader.conf.d" / "more.conf").write_text('from="directory"\n')
    directory = PublishedDirectory(str(tmp_path / "tree"))
    answers = Answers(
        {}, first_script=lambda *_: b"", boot_script=lambda *_: pytest.fail("no"), machine_at=lambda _: "",
        published=directory, record=lambda _: None,
    )  # fmt: skip
    said: list[str] = []
    with served(answers.http) as house:
        console = Console(None, say=said.append, environment={})
        base = f"http://127.0.0.1:{house.port}/files"
        went = console.script(
            [f"set base={base}", "set cmdline=-v mine=1", "load freebsd", f"boot save {tmp_path}/out"]
        )
        console.close()
    directory.close()
    assert went, said
    told = (tmp_path / "out" / "describe.txt").read_text()
    for expected in ("/boot/kernel/m.ko", "/boot/modules/packed.ko", "/boot/mfsroot", "from=directory", "mine=1", "-v"):
        assert expected in told, told
    assert (tmp_path / "out" / "freebsd.elf").read_bytes().startswith(b"\x7fELF")
