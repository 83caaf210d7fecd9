"""The whole way: octets over HTTP by our own TCP/IP, checked, put together, and started in QEMU."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import probe_kernel
from bootwire.lab import initrd
from bootwire.lab.linux import Linux
from bootwire.preboot.fetch import Fetcher
from bootwire.preboot.handoff.load import File, Loaded, load, load_freebsd
from bootwire.preboot.httpfs import HttpFs
from bootwire.preboot.transport import StackTransport
from interop.test_stack_kernel import KERNEL, nginx, rig

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PATIENCE = 300.0  # seconds; 10 are usual on an idle machine
SERVER = f"http://{KERNEL}"


def started(loaded: Loaded) -> str:
    """What a machine says that is started with it."""
    with loaded.start_qemu(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as qemu:
        out, _ = qemu.process.communicate(timeout=PATIENCE)
    return str(out.decode("utf-8", "replace")).replace("\r", "")


def test_debians_kernel_and_initrds_come_by_our_own_tcp_and_start(
    linux: Callable[[str], Linux], tmp_path: Path
) -> None:
    small = linux("amd64")
    files = {
        "vmlinuz": small.kernel.read_bytes(),
        "system.gz": small.initrd(),
        "more.gz": initrd.extra({"more": "from the second archive"}),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    fetched = []
    with rig() as lan, nginx(lan.kernel, tmp_path), Fetcher(StackTransport(lan.stack)) as fetcher:
        for name, data in files.items():
            octets = bytearray()
            fetcher.fetch(f"{SERVER}/{name}", octets.extend)
            fetched.append(File(f"{SERVER}/{name}", bytes(octets), digest=hashlib.sha256(data).hexdigest()))
    said = started(load(fetched[0], fetched[1:], "console=ttyS0 token=over-the-wire"))
    assert f"{initrd.MARK} cmdline console=ttyS0 token=over-the-wire\n" in said
    assert f"{initrd.MARK} file /bootwire/more: from the second archive\n" in said


def test_a_freebsd_tree_is_read_over_http_and_starts(tmp_path: Path) -> None:
    module = probe_kernel.module(tmp_path)
    kernel = probe_kernel.kernel(tmp_path)
    files = {
        "boot/loader.conf": b'm_load="YES"\npacked_load="YES"\nroot_load="YES"\nroot_type="mfs_root"\n'
        b'root_name="/boot/mfsroot"\nfrom="nginx"\n',
        "boot/loader.conf.d/more.conf": b"",
        "boot/kernel/kernel": kernel,
        "boot/kernel/m.ko": module,
        "boot/modules/packed.ko.gz": gzip.compress(module),
        "boot/mfsroot.gz": gzip.compress(b"disk" * 10_000),
    }
    for name, data in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    with rig() as lan, nginx(lan.kernel, tmp_path / "tree"), Fetcher(StackTransport(lan.stack)) as fetcher:
        tree = HttpFs(fetcher, SERVER)
        loaded = load_freebsd(
            lambda name: tree.cat(name, inflate=False), lambda name: [entry.name for entry in tree.ls(name)]
        )
    assert [note.partition(" ")[0] for note in loaded.notes] == ["/boot/loader.conf.d"]  # nginx lists nothing here
    handed = probe_kernel.read(started(loaded))
    assert handed.environment["from"] == "nginx"
    names = [next(record.text for record in one if record.kind == 1) for one in handed.files()]
    assert names == ["/boot/kernel/kernel", "/boot/kernel/m.ko", "/boot/modules/packed.ko", "/boot/mfsroot"]
    assert handed.bodies[3][0] == probe_kernel.checksum(b"disk" * 10_000)
