"""A fleet of five different machines, from one file: each gets its own, the armed one installs once and then boots from
its disk, and the file changes meanwhile without a dropped transfer.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootwire import facts
from bootwire.lab import initrd
from bootwire.lab.firmware import FIRMWARE, Machine, power_on
from bootwire.lab.initrd import Entry
from bootwire.lab.linux import Linux
from bootwire.lab.server import start_server
from bootwire.serve import loaders
from bootwire.serve.packages import fetch_package
from disks import mbr_disk
from lab_bench import BOOTWIRE, Bench

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SOURCE = str(Path(__file__).parents[2] / "src")
MACS = {
    "installs": "52:54:00:77:00:01",
    "uefi": "52:54:00:77:00:02",
    "uefi-http": "52:54:00:77:00:03",
    "arm64": "52:54:00:77:00:04",
    "local": "52:54:00:77:00:05",
}
ON_DISK = "started from its own disk"

FLEET = """
[variables]
site = "lab-one"

[profiles.install]
kernel = "vmlinuz-amd64"
initrd = "install.gz"
cmdline = "console=ttyS0 {token} name={{{{ name }}}} home={{{{ phone_home }}}}"
install = true

[profiles.run]
kernel = "vmlinuz-amd64"
initrd = "system-amd64.gz"
cmdline = '''console=ttyS0 {token} name={{{{ name }}}} site={{{{ site }}}} firmware={{{{ firmware }}}}
  ds={{{{ seed() }}}}'''
documents = {{ user-data = "user-data" }}
secrets = {{ password = "password" }}

[profiles.run-arm64]
kernel = "vmlinuz-arm64"
initrd = "system-arm64.gz"
cmdline = "console=ttyAMA0 {token} name={{{{ name }}}} site={{{{ site }}}}"

[profiles.disk]
local = true

[[machine]]
name = "new-server"
mac = "{installs}"
profile = "install"

[[machine]]
name = "old-server"
mac = "{local}"
profile = "disk"

[[group]]
name = "booted over HTTP"
match = {{ firmware = "uefi-http" }}
profile = "run"
variables = {{ site = "over-http" }}

[[group]]
name = "boards"
match = {{ arch = "arm64" }}
profile = "run-arm64"

[[group]]
name = "everybody else"
profile = "run"
"""

# What installs: the modules of the card and the disk, an address, a new boot sector, a report.
INSTALLER = f"""#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /dev /etc; $b mount -t proc proc /proc; $b mount -t devtmpfs dev /dev
for module in $($b cat /modules/order); do $b insmod /modules/$module || echo "{initrd.MARK} no $module"; done
$b ip link set eth0 up
$b udhcpc -i eth0 -n -q -s /lease
$b dd if=/sector of=/dev/vda bs=512 count=1 conv=notrunc && $b sync
home=$($b sed 's/.*home=\\([^ ]*\\).*/\\1/' /proc/cmdline)
echo "{initrd.MARK} installing, reports to $home"
$b wget -q -O - "$home" && echo "{initrd.MARK} installed" || echo "{initrd.MARK} could not report"
$b poweroff -f
"""
LEASE = """#!/bin/busybox sh
[ "$1" = bound ] && /bin/busybox ip addr add $ip/24 dev eth0
exit 0
"""
MODULES = (
    "virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "failover",
    "net_failover", "virtio_net", "virtio_blk",
)  # fmt: skip


def installer(linux: Linux, state: Path, sector: bytes) -> bytes:
    """The initrd that installs; its modules are those of the kernel it runs on."""

    def wanted(path: str) -> bool:
        return Path(path).name.removesuffix(".ko") in MODULES and path.endswith(".ko")

    package = fetch_package("linux-image-cloud-amd64", None, "amd64", wanted, state=state)
    assert linux.version.endswith(package.version)
    found = {Path(path).name: file.read_bytes() for path, file in package.files.items()}
    present = [f"{name}.ko" for name in MODULES if f"{name}.ko" in found]
    executable, plain, folder = stat.S_IFREG | 0o755, stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
    entries = [
        Entry("bin", folder), Entry("bin/busybox", executable, linux.busybox.read_bytes()),
        Entry("init", executable, INSTALLER.encode()), Entry("lease", executable, LEASE.encode()),
        Entry("sector", plain, sector), Entry("modules", folder),
        Entry("modules/order", plain, "\n".join(present).encode()),
        *(Entry(f"modules/{name}", plain, found[name]) for name in present),
    ]  # fmt: skip
    return gzip.compress(initrd.cpio(entries), 6, mtime=0)


def boot_sector(text: str) -> bytes:
    """A sector that says `text` over the serial port and stops: 16-bit code, COM1 at 0x3F8."""
    code = bytes.fromhex("31c08ed8be237cfcac84c0741288c3bafd03eca82074fb88d8baf803eeebe9faf4ebfd")
    return (code + text.encode() + b"\r\n\0").ljust(510, b"\0") + b"\x55\xaa"


def drive(path: Path) -> list[str]:
    return [
        "-drive", f"if=none,id=disk,format=raw,file={path}", "-device", "virtio-blk-pci,drive=disk,bootindex=1",
    ]  # fmt: skip


class Fleet:
    """The file, the server that follows it, and the machines."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.folder = bench, folder
        self.file = folder / "fleet.toml"
        self.write(FLEET)
        options = ["-i", "eth0", "--state-dir", str(bench.state), "--no-fetch", "--files", str(folder / "files")]
        options += ["--loaders", str(folder / "loaders")]
        self.server = bench.server = start_server(bench.ours, ["serve", str(self.file), *options], bench.directory)
        self.machines: list[Machine] = []

    def write(self, text: str) -> None:
        fresh = self.folder / "fresh"
        fresh.write_text(text.format(token=self.bench.token, **MACS))
        os.replace(fresh, self.file)

    def command(self, *arguments: str) -> str:
        words = [sys.executable, "-m", "bootwire", *arguments, "--state-dir", str(self.bench.state)]
        environment = {**os.environ, "PYTHONPATH": SOURCE}
        process = self.bench.ours.start(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
        out = process.communicate(timeout=60)[0].decode()
        assert process.returncode == 0, out
        return out

    def on(self, name: str, firmware: str, *options: str) -> Machine:
        directory = self.folder / f"{name}-{len(self.machines)}"
        machine = power_on(FIRMWARE[firmware], self.bench.lan, MACS[name], directory, options)
        self.machines.append(machine)
        return machine

    def cmdline(self, machine: Machine) -> str:
        """As the kernel itself printed it."""
        self.bench.said(machine, f"{initrd.MARK} done")
        found = machine.said(r"Kernel command line: (.*)")
        assert found
        return found[1]

    def fetched(self, url: str) -> tuple[int, str]:
        """By a host that is no machine: status and body."""
        curl = ["curl", "-s", "-w", "%{stderr}%{http_code}", url]
        process = self.bench.dhcp.start(curl, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        body, status = process.communicate(timeout=60)
        return int(status), body.decode()

    def told(self, name: str, kind: type[facts.Fact]) -> list[facts.Fact]:
        return [fact for fact in self.server.facts(MACS[name]) if isinstance(fact, kind)]


@pytest.fixture
def fleet(bench: Bench, linux: Callable[[str], Linux], state: Path, tmp_path: Path) -> Iterator[Fleet]:
    folder = tmp_path / "fleet"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "large").write_bytes(random.Random(8).randbytes(24_000_000))
    for architecture in ("amd64", "arm64"):
        system = linux(architecture)
        (folder / f"vmlinuz-{architecture}").symlink_to(system.kernel)
        (folder / f"system-{architecture}.gz").write_bytes(system.initrd())
    (folder / "user-data").write_text("password: {{ secret('password') }}\n")
    (folder / "password").write_text("swordfish\n")
    (folder / "install.gz").write_bytes(installer(linux("amd64"), state, boot_sector(ON_DISK)))
    bench.state = folder / "state"  # its own: who is armed elsewhere is none of ours
    for name, loader in loaders.find(state).items():
        (folder / "loaders" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "loaders" / name).write_bytes(loader.path.read_bytes())
    with bench:
        bench.start_dhcp()
        yield Fleet(bench, folder)


def secret_of(fleet: Fleet, text: str) -> tuple[int, str]:
    """What the document whose folder is named in a command line is, or in a script."""
    found = re.search(r"ds=(\S+)", text)
    assert found, text
    return fleet.fetched(f"{found[1]}user-data")


def test_five_machines_from_one_file(fleet: Fleet, tmp_path: Path) -> None:
    empty = mbr_disk(tmp_path / "empty.img", 4 << 20, [], {})
    installed = tmp_path / "installed.img"
    installed.write_bytes(boot_sector(ON_DISK).ljust(4 << 20, b"\0"))

    # Not armed: nothing is installed, the machine goes on with what is on its disk (nothing).
    refused = fleet.on("installs", "bios", *drive(empty))
    fleet.server.wait_for(
        lambda records: any(isinstance(r.fact, facts.Silent) and "bootwire arm" in r.fact.because for r in records),
        "the machine that is not armed is left alone", 60,
    )  # fmt: skip
    refused.end()
    assert fleet.told("installs", facts.ScriptServed) == []

    # Armed: it installs, once; two other machines boot meanwhile.
    assert "armed" in fleet.command("arm", MACS["installs"], "--tries", "1")
    installing = fleet.on("installs", "bios", *drive(empty))
    over_pxe = fleet.on("uefi", "uefi")
    assert fleet.bench.token in fleet.bench.said(installing, r"Kernel command line: .*\n")
    fleet.bench.said(installing, f"{initrd.MARK} installed")
    assert installing.wait_end(30)
    cmdline = fleet.cmdline(over_pxe)
    assert "name=52-54-00-77-00-02 site=lab-one firmware=uefi" in cmdline
    assert secret_of(fleet, cmdline) == (200, "password: swordfish\n")
    assert secret_of(fleet, cmdline)[0] == 403
    # Who names the machine over HTTP gets another URL, which opens no secrets.
    script = fleet.fetched(f"http://{BOOTWIRE}/boot.ipxe?mac={MACS['uefi']}&arch=x86_64&platform=efi&serial=X")[1]
    assert script.count("/doc/") == 1
    status, why = secret_of(fleet, script)
    assert (status, "swordfish" in why, "by DHCP it is at 10.77.0." in why) == (404, False, True)
    (state,) = [fact for fact in fleet.told("installs", facts.StateChanged) if fact.phase == "installed"]
    assert "it phoned home from 10.77.0." in state.because

    # The file changes under a transfer: the transfer is whole, the next machine gets the new answer.
    curl = ["curl", "-s", "--limit-rate", "3M", f"http://{BOOTWIRE}/files/large"]
    transfer = fleet.bench.dhcp.start(curl, stdout=subprocess.PIPE)
    fleet.write(FLEET.replace("over-http", "changed-meanwhile"))
    fleet.server.wait_for(
        lambda records: any(isinstance(r.fact, facts.FleetLoaded) for r in records), "the changed file is taken up", 20
    )
    over_http = fleet.on("uefi-http", "uefi-http")
    again = fleet.on("installs", "bios", *drive(empty))
    assert (
        hashlib.sha256(transfer.communicate(timeout=120)[0]).digest()
        == hashlib.sha256((fleet.folder / "files" / "large").read_bytes()).digest()
    )
    assert fleet.bench.said(again, ON_DISK)
    again.end()
    cmdline = fleet.cmdline(over_http)
    assert "site=changed-meanwhile firmware=uefi-http" in cmdline
    assert secret_of(fleet, cmdline) == (200, "password: swordfish\n")

    # A broken file changes nothing for who boots now; the last two machines.
    fleet.write(FLEET.replace("[profiles.disk]", "[profiles.dsik]"))
    fleet.server.wait_for(
        lambda records: any(isinstance(r.fact, facts.Warned) and "stays" in r.fact.what for r in records),
        "the broken file is told", 20,
    )  # fmt: skip
    board = fleet.on("arm64", "uefi-arm64")
    local = fleet.on("local", "bios", *drive(installed))
    assert fleet.bench.said(local, ON_DISK)
    local.end()
    assert re.search(r"console=ttyAMA0 .*name=52-54-00-77-00-04 site=lab-one", fleet.cmdline(board))

    assert fleet.told("local", facts.ScriptServed) == []
    assert len([f for f in fleet.told("installs", facts.StateChanged) if f.phase == "installing"]) == 1
    assert not [f for r in fleet.server.records() if isinstance(f := r.fact, facts.TransferFailed)]
    assert fleet.server.stop() == 0
    for machine in fleet.machines:
        machine.end()
