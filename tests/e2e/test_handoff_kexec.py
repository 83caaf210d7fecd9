"""kexec in a virtual machine, by the product's own code: each kernel that starts runs Python and starts the next.

    QEMU -> Debian's kernel, refusals -> kexec_file_load -> the same kernel -> kexec_load -> the same kernel
         -> kexec_load -> a kernel that stands for FreeBSD's

The machine has five-level paging (-cpu max), so that the last step must leave it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import guest_python
import probe_kernel
from bootwire.lab.linux import Linux
from bootwire.preboot.handoff.load import File, load
from preboot.test_handoff_linux import bzimage

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PATIENCE = 500.0  # seconds from power-on to the end; 40 to 60 are usual on an idle machine
TOKEN = 'token="two  words" =x'
COMMON = "console={} PYTHONHASHSEED=0 quiet"

MAIN = r"""
import os, subprocess, sys
from pathlib import Path
from bootwire.lab.initrd import Entry, cpio
from bootwire.preboot.handoff import machine
from bootwire.preboot.handoff.load import File, load
from bootwire.preboot.handoff.refusal import HandoffError

line = Path("/proc/cmdline").read_text().strip()
COMMON = line.partition(" step=")[0]
print("guest cmdline:", line, flush=True)
print("guest second archive:", Path("/payload/order").read_text(), flush=True)
files = {path.name: path.read_bytes() for path in Path("/payload").iterdir()}
kernel = File("vmlinuz", files["vmlinuz"])
base = File("base", files["base"])

def second():
    entries = [Entry("payload", 0o40755)]
    return File("payload", cpio([*entries, *(Entry(f"payload/{n}", 0o100644, d) for n, d in files.items())]))

def refused(name, attempt):
    try:
        attempt()
        print(f"guest {name}: not refused", flush=True)
    except HandoffError as error:
        print(f"guest {name}: {error} [loaded {machine.loaded()}]", flush=True)

def as_nobody(attempt):
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        refused("no privilege", attempt)
        os._exit(0)
    os.waitpid(child, 0)

if "step=1" in line:
    refused("not a kernel", lambda: load(File("page", b"<html>login</html>")))
    refused("truncated", lambda: load(File("vmlinuz", files["vmlinuz"][:100_000])))
    refused("truncated initrd", lambda: load(kernel, [File("base", files["base"][:100_000])]))
    refused("junk by the kernel itself", lambda: machine.load_files(b"junk" * 1000, b"", ""))
    refused("wrong architecture", lambda: load(File("Image", files["other"])).kexec())
    as_nobody(lambda: load(kernel).kexec())
    loaded = load(kernel, [base, second()], COMMON + ' step=2 token="two  words" =x')
    print("guest describes:", loaded.describe().replace("\n", " | "), flush=True)
    loaded.kexec()
    print("guest loaded:", machine.loaded(), flush=True)
    machine.unload()
    print("guest unloaded:", not machine.loaded(), flush=True)
    refused("nothing loaded", machine.start)
    loaded.kexec()
elif "step=2" in line and machine.architecture() == "arm64":
    sys.exit()
elif "step=2" in line:
    load(kernel, [base, second()], COMMON + " step=3").kexec(by_segments=True)
elif "step=3" in line:
    print("guest five levels:", "la57" in Path("/proc/cpuinfo").read_text(), flush=True)
    loaded = load(File("kernel", files["probe"]), [File("/boot/mfsroot", files["disk"])], "-v from=kexec")
    loaded.kexec()
    Path("/sys/kernel/security/lockdown").write_text("integrity")
    refused("locked down", loaded.kexec)
    refused("untrusted under lockdown", load(kernel).kexec)
    Path("/proc/sys/kernel/kexec_load_disabled").write_text("1")
    refused("switched off", loaded.kexec)
machine.start()
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return probe_kernel.kernel(tmp_path_factory.mktemp("probe"))


def run(
    linux: Callable[[str], Linux], state: Path, architecture: str, console: str, more: dict[str, bytes], *extra: str
) -> str:
    """All that came over the serial port, from the first kernel to the last."""
    vmlinuz = linux(architecture).kernel.read_bytes()
    base = guest_python.initrd(state, MAIN, architecture)
    payload = {"vmlinuz": vmlinuz, "base": base, "order": b"was unpacked", **more}
    archive = guest_python.archive({f"payload/{name}": data for name, data in payload.items()})
    line = f"{COMMON.format(console)} step=1"
    loaded = load(File("vmlinuz", vmlinuz), [File("base", base), File("payload", archive)], line)
    with loaded.start_qemu(1024, extra, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as qemu:
        out, _ = qemu.process.communicate(timeout=PATIENCE)
    text = out.decode("utf-8", "replace").replace("\r", "")
    assert "guest failed" not in text, text[-3000:]
    return text


@pytest.fixture(scope="module")
def said(linux: Callable[[str], Linux], state: Path, probe: bytes) -> str:
    other = b"MZ" + bytes(54) + b"ARMd" + bytes(4096)
    more = {"probe": probe, "disk": b"DISK" * 5000, "other": other}
    return run(linux, state, "amd64", "ttyS0", more, "-cpu", "max")


def refusal(said: str, name: str) -> str:
    found = re.search(rf"guest {name}: (.*)", said)
    assert found, said[-3000:]
    assert found[1].endswith("[loaded False]"), found[1]
    return found[1]


def test_kernel_and_initrds_start_in_qemu_with_their_command_line(said: str) -> None:
    assert f"guest cmdline: {COMMON.format('ttyS0')} step=1\n" in said
    assert said.count("guest second archive: was unpacked") == 3


def test_kexec_file_load_starts_a_kernel_with_exactly_this_command_line(said: str) -> None:
    assert f"guest cmdline: {COMMON.format('ttyS0')} step=2 {TOKEN}\n" in said


def test_kexec_load_starts_a_kernel_with_its_initrds(said: str) -> None:
    assert f"guest cmdline: {COMMON.format('ttyS0')} step=3\n" in said


def test_a_loaded_kernel_can_be_unloaded(said: str) -> None:
    assert "guest loaded: True\nguest unloaded: True\n" in said


@pytest.mark.parametrize(
    ("name", "because"),
    [
        ("not a kernel", "a web page, not a kernel"),
        ("truncated", "cut off at 100000 of"),
        ("truncated initrd", "cut off or damaged"),
        ("junk by the kernel itself", "ENOEXEC"),
        ("wrong architecture", "the kernel is for arm64, this machine is x86_64"),
        ("no privilege", "only root"),
        ("nothing loaded", "no kernel is loaded"),
    ],
)
def test_refusals_say_why_and_load_nothing(said: str, name: str, because: str) -> None:
    assert because in refusal(said, name)


@pytest.mark.parametrize(
    ("name", "because"),
    [
        ("locked down", "the kernel is locked down (integrity) and takes signed kernels only"),
        ("untrusted under lockdown", "the kernel is locked down (integrity) and takes signed kernels only (EPERM"),
        ("switched off", "kexec_load_disabled"),
    ],
)
def test_a_kernel_that_forbids_kexec_says_so_and_keeps_what_was_loaded(said: str, name: str, because: str) -> None:
    """Nothing vouches for any signature in this machine: its firmware has no keys."""
    found = re.search(rf"guest {name}: (.*)", said)
    assert found, said[-3000:]
    assert because in found[1]
    assert found[1].endswith("[loaded True]")


def test_freebsd_by_kexec_gets_this_machines_memory_map_out_of_five_level_paging(said: str, probe: bytes) -> None:
    assert "guest five levels: True" in said
    handed = probe_kernel.read(said)
    assert handed.environment["from"] == "kexec"
    assert handed.environment["vfs.root.mountfrom"] == "ufs:/dev/md0"
    kernel, disk = ({record.kind: record for record in group} for group in handed.files())
    assert kernel[0x8007].number == 0x800
    smap = kernel[0x9001].data
    assert smap
    assert len(smap) % 20 == 0
    assert disk[4].number == 20000
    assert handed.bodies[1][0] == probe_kernel.checksum(b"DISK" * 5000)


def test_arm64_goes_the_other_way_where_its_kernel_lacks_kexec_file_load(
    linux: Callable[[str], Linux], state: Path
) -> None:
    said = run(linux, state, "arm64", "ttyAMA0", {"other": bzimage()})
    assert f"guest cmdline: {COMMON.format('ttyAMA0')} step=2 {TOKEN}\n" in said
    assert said.count("guest second archive: was unpacked") == 2
    assert "the kernel is for x86_64, this machine is arm64" in refusal(said, "wrong architecture")
    assert "ENOSYS" in refusal(said, "junk by the kernel itself")
