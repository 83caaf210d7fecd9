"""The console, as a person calls it, from a card of its own to a kernel that prints its command line: in a virtual
machine that it starts (`boot qemu`), and in its own place on the machine it runs on (`boot kexec`).
"""

from __future__ import annotations

import lzma
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import bootwire as bootwire_package
import guest_python
from bootwire.lab import initrd
from bootwire.lab.linux import Linux
from bootwire.preboot.handoff.load import File, load
from bootwire.serve.packages import fetch_package
from interop import test_fetch_peers
from interop.test_stack_kernel import nginx
from lab_bench import SECOND, Bench
from namespaces import dnsmasq, pair

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PATIENCE = 300.0  # seconds; 10 to 30 are usual on an idle machine
MODULES = (  # of a virtio card, in the order in which they are loaded
    "virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "failover", "net_failover",
    "virtio_net",
)  # fmt: skip

MAIN = """
import ctypes, os, subprocess, sys
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)
for path in sorted(Path("/modules").iterdir()):
    fd = os.open(path, os.O_RDONLY)
    if libc.syscall(313, fd, b"", 0):  # finit_module
        print("guest failed: module", path, os.strerror(ctypes.get_errno()), flush=True)
import fcntl, socket, struct
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(control, 0x8914, struct.pack("16sH22x", b"eth0", 1))  # SIOCSIFFLAGS, IFF_UP
from bootwire.cli import main
main(["console", "--nic", "eth0", *Path("/arguments").read_text().splitlines()])
"""


def files(linux: Linux, root: Path) -> None:
    root.mkdir(exist_ok=True)
    (root / "vmlinuz").write_bytes(linux.kernel.read_bytes())
    (root / "system.gz").write_bytes(linux.initrd())
    (root / "more.gz").write_bytes(initrd.extra({"more": "from the second archive"}))


def script(base: str, cmdline: str, way: str) -> str:
    return (
        f"set base={base}; load kernel vmlinuz; load initrd system.gz; load initrd more.gz; lsmod; "
        f"set 'cmdline={cmdline}'; boot {way}"
    )


def test_boot_qemu(linux: Callable[[str], Linux], tmp_path: Path) -> None:
    files(linux("amd64"), tmp_path / "tree")
    go = script("http://10.9.0.2", 'console=ttyS0 token="two  words"', "qemu")
    environment = {**os.environ, "PYTHONPATH": str(Path(bootwire_package.__file__).parents[1])}
    command = [sys.executable, "-m", "bootwire", "console", "--nic", "here", "-c", go]
    with pair() as (one, two), dnsmasq(two), nginx(two, tmp_path / "tree", "10.9.0.2"):
        console = one.start(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        out, _ = console.communicate(timeout=PATIENCE)
    said = out.decode("utf-8", "replace").replace("\r", "")
    assert console.returncode == 0, said[-3000:]
    assert "kernel http://10.9.0.2/vmlinuz: " in said
    assert re.search(r'Kernel command line: .*console=ttyS0 token="two  words"\n', said), said[-3000:]
    assert f"{initrd.MARK} file /bootwire/more: from the second archive\n" in said


def test_boot_kexec(linux: Callable[[str], Linux], state: Path, tmp_path: Path) -> None:
    """The machine has a virtio card and Debian's Python; its DHCP server is QEMU's, its web server nginx."""
    small = linux("amd64")
    tree = tmp_path / "tree"
    files(small, tree)
    port = test_fetch_peers.free_port()
    go = script(f"http://10.0.2.2:{port}", "console=ttyS0 quiet token=by-kexec", "kexec")
    wanted = re.compile(rf"lib/modules/.*/({'|'.join(MODULES)})\.ko(\.xz)?")
    found = fetch_package(
        "linux-image-cloud-amd64", None, "amd64", lambda path: bool(wanted.fullmatch(path)), state=state
    )
    modules = {}
    for path, blob in found.files.items():
        data = blob.read_bytes()
        modules[Path(path).name.partition(".")[0]] = lzma.decompress(data) if path.endswith(".xz") else data
    package = Path(click.__file__).parent
    more = {f"src/click/{path.name}": path.read_bytes() for path in package.glob("*.py")}
    more |= {f"modules/{at}-{name}.ko": modules[name] for at, name in enumerate(MODULES)}
    more["arguments"] = f"-c\n{go}\n".encode()
    machine = load(
        File("vmlinuz", small.kernel.read_bytes()),
        [File("base", guest_python.initrd(state, MAIN)), File("more", guest_python.archive(more))],
        "console=ttyS0 PYTHONHASHSEED=0 quiet",
    )
    net = ("-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile=")
    with (
        test_fetch_peers.nginx(tree, port),
        machine.start_qemu(1024, net, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as qemu,
    ):
        out, _ = qemu.process.communicate(timeout=PATIENCE)
    said = out.decode("utf-8", "replace").replace("\r", "")
    assert "guest failed" not in said, said[-3000:]
    assert "starting it\n" in said, said[-3000:]
    assert f"{initrd.MARK} cmdline console=ttyS0 quiet token=by-kexec\n" in said, said[-3000:]
    assert f"{initrd.MARK} file /bootwire/more: from the second archive\n" in said


def test_boot_client_boots_from_bootwire_as_uefi_and_starts_the_kernel(bench: Bench) -> None:
    """Persona, loader, script, kernel and initrds, all over our own TCP/IP; then a virtual machine runs them."""
    with bench:
        bench.start_dhcp()
        bench.serve("uefi")
        client = bench.network.host("client", {bench.lan: "10.77.0.9/24"})
        process = client.start(
            [sys.executable, "-m", "bootwire", "boot-client", "--nic", "eth0", "--as", "uefi", "--then", "qemu"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path(bootwire_package.__file__).parents[1])},
        )  # fmt: skip
        out, _ = process.communicate(timeout=PATIENCE)
        said = out.decode("utf-8", "replace").replace("\r", "")
        assert process.returncode == 0, said[-3000:]
        assert re.search(rf"Kernel command line: .*console=ttyS0 {bench.token}\n", said), said[-3000:]
        assert f"{initrd.MARK} file /bootwire/second: {SECOND}\n" in said
