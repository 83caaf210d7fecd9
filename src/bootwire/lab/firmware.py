"""Virtual machines that have nothing but firmware and a network card: QEMU, always in software emulation.

Every machine has a virtio random number device: EDK2's network stack since the 2024 security fixes has no network
boot entries without a source of random numbers. The serial port is recorded from the first octet on,
and so is the debug console of PCs: what a program writes to port 0xE9 (QEMU's isa-debugcon, Bochs' before it).
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bootwire.lab.network import LabError, Segment, find_program, stop

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x1f\x7f]")  # ECMA-48 sequences

# SeaBIOS src/boot.c; MdeModulePkg/Library/UefiBootManagerLib and BdsDxe (Boot0001 is the way to boot that was chosen);
# Linux kernel/panic.c
_GAVE_UP = re.compile(r"No bootable device|failed to (load|start) Boot0001|UEFI Interactive Shell|Kernel panic")
_COMPLAINTS = "qemu.err"  # file of QEMU's standard error, beside the serial log
_DEBUG = "debug.log"  # file of what was written to port 0xE9


@dataclass(frozen=True, slots=True)
class Firmware:
    """One way a machine comes up.

    name          as on the command line
    title         for people
    architecture  Debian's name of the architecture the kernel must have: "amd64" or "arm64"
    console       the kernel's serial port
    memory        MiB
    program       the QEMU binary
    options       what makes this firmware: machine type and firmware files; {vars} is a private copy of `variables`
    card          the network card's -device options
    variables     the variable store's template, "" for none
    needs         programs and files (absolute paths), each with the Debian package it is in
    """

    name: str
    title: str
    architecture: str
    console: str
    memory: int
    program: str
    options: tuple[str, ...]
    card: str
    variables: str
    needs: tuple[tuple[str, str], ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """The Debian packages that are needed and not installed."""
        return tuple(package for name, package in self.needs if not (find_program(name) or Path("/", name).is_file()))


_BIOS = ("-machine", "pc,graphics=off")  # graphics=off: SeaBIOS and the ROMs write to the serial port, too (sercon)
_OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"
_OVMF_VARS = "/usr/share/OVMF/OVMF_VARS_4M.fd"
_AAVMF = "/usr/share/AAVMF/AAVMF_CODE.fd"
_AAVMF_VARS = "/usr/share/AAVMF/AAVMF_VARS.fd"
_VIRTIO = "virtio-net-pci"
_VIRTIO_EDK2 = "virtio-net-pci,romfile="  # no iPXE in the card: EDK2's own driver and network stack


def _flash(code: str) -> tuple[str, ...]:
    return (
        "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}",
        "-drive", "if=pflash,unit=1,format=raw,file={vars}",
    )  # fmt: skip


def _no_pxe() -> tuple[str, ...]:
    # OvmfPkg/Library/PxeBcPcdProducerLib: without PXE, HTTP is the card's first boot option
    settings = [("-fw_cfg", f"name=opt/org.tianocore/IPv{version}PXESupport,string=n") for version in (4, 6)]
    return tuple(word for pair in settings for word in pair)


_X64 = "qemu-system-x86_64"
_A64 = "qemu-system-aarch64"
_NEEDS_BIOS = ((_X64, "qemu-system-x86"), ("/usr/share/seabios/bios-256k.bin", "seabios"))
_NEEDS_VIRTIO_ROM = ("/usr/lib/ipxe/qemu/pxe-virtio.rom", "ipxe-qemu")
_NEEDS_E1000_ROM = ("/usr/lib/ipxe/qemu/pxe-e1000.rom", "ipxe-qemu")
_NEEDS_OVMF = ((_X64, "qemu-system-x86"), (_OVMF, "ovmf"))
_NEEDS_AAVMF = ((_A64, "qemu-system-arm"), (_AAVMF, "qemu-efi-aarch64"))

FIRMWARE = {
    firmware.name: firmware
    for firmware in (
        Firmware(
            "bios", "BIOS, QEMU's iPXE ROM, virtio-net", "amd64", "ttyS0", 256,
            _X64, _BIOS, _VIRTIO, "", (*_NEEDS_BIOS, _NEEDS_VIRTIO_ROM),
        ),
        Firmware(
            "bios-e1000", "BIOS, QEMU's iPXE ROM, e1000", "amd64", "ttyS0", 256,
            _X64, _BIOS, "e1000", "", (*_NEEDS_BIOS, _NEEDS_E1000_ROM),
        ),
        Firmware(
            "uefi", "UEFI x64 PXE, EDK2", "amd64", "ttyS0", 384,
            _X64, ("-machine", "q35", *_flash(_OVMF)), _VIRTIO_EDK2, _OVMF_VARS, _NEEDS_OVMF,
        ),
        Firmware(
            "uefi-http", "UEFI x64 HTTP Boot, EDK2", "amd64", "ttyS0", 384,
            _X64, ("-machine", "q35", *_flash(_OVMF), *_no_pxe()), _VIRTIO_EDK2, _OVMF_VARS, _NEEDS_OVMF,
        ),
        Firmware(
            "uefi-ipxe", "UEFI x64, QEMU's iPXE ROM, virtio-net", "amd64", "ttyS0", 384,
            _X64, ("-machine", "q35", *_flash(_OVMF)), _VIRTIO, _OVMF_VARS,
            (*_NEEDS_OVMF, ("/usr/lib/ipxe/qemu/efi-virtio.rom", "ipxe-qemu")),
        ),
        Firmware(
            "uefi-arm64", "UEFI arm64 PXE, EDK2", "arm64", "ttyAMA0", 512,
            _A64, ("-machine", "virt", "-cpu", "cortex-a57", *_flash(_AAVMF)), _VIRTIO_EDK2, _AAVMF_VARS, _NEEDS_AAVMF,
        ),
    )
}  # fmt: skip


class Machine:
    """A running machine: its serial port, and its end.

    `started` is in seconds since the Unix epoch, as the facts' are. Lines are kept with the moment they were complete.
    """

    def __init__(self, firmware: Firmware, mac: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.firmware = firmware
        self.mac = mac
        self.log = log
        self.started = time.time()
        self._process = process
        self._lines: list[tuple[float, str]] = []
        self._text = ""
        self._echoed = False
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def text(self) -> str:
        """What came over the serial port so far, without control sequences."""
        with self._more:
            return self._text

    @property
    def debug(self) -> str:
        """What programs wrote to port 0xE9 so far; "" on machines that have no such port."""
        debug = self.log.with_name(_DEBUG)
        return debug.read_text("utf-8", "replace") if debug.exists() else ""

    def lines(self) -> list[tuple[float, str]]:
        """Whole lines so far, each with its moment in seconds since the Unix epoch."""
        with self._more:
            return list(self._lines)

    def said(self, pattern: str) -> re.Match[str] | None:
        """The first place in the serial output where the regular expression is found."""
        return re.search(pattern, self.text)

    @property
    def failed(self) -> bool:
        """Its firmware gave up the way to boot that was chosen, its kernel panicked, or it ended."""
        return not self.running or self._gave_up

    @property
    def _gave_up(self) -> bool:
        return _GAVE_UP.search(self.text) is not None

    def wait_for(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait until the regular expression is found in the serial output.

        Raises LabError with the last lines seen when time is up or the machine has failed before.
        """
        deadline = time.monotonic() + timeout
        while (found := self.said(pattern)) is None:
            if time.monotonic() > deadline or (self.failed and not self._reader.is_alive()) or self._gave_up:
                raise LabError(f"{self.firmware.title}: {pattern!r} was not seen; last lines:\n{self.tail()}")
            with self._more:
                self._more.wait(0.25)
        return found

    def type(self, keys: str) -> None:
        """Type on the serial console, each key when the one before has been echoed: its buffer holds 16 octets."""
        assert self._process.stdin is not None
        for key in keys:
            with self._more:
                self._echoed = False
                self._process.stdin.write(key.encode())
                self._process.stdin.flush()
                self._more.wait_for(lambda: self._echoed, timeout=1)

    def press(self, key: str) -> None:
        """Send one key, which may be several octets that belong together (an escape sequence)."""
        assert self._process.stdin is not None
        self._process.stdin.write(key.encode())
        self._process.stdin.flush()

    def wait_end(self, timeout: float) -> bool:
        """Wait until the machine has powered off; whether it has."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(timeout)
        return True

    def end(self) -> None:
        """Cut its power."""
        stop([self._process])
        self._reader.join()

    def tail(self, count: int = 12) -> str:
        """The last lines that are not empty; QEMU's own complaints where it has ended."""
        text = self.text
        if not self.running and (complaints := self.log.with_name(_COMPLAINTS)).exists():
            text += "\n" + complaints.read_text(errors="replace")
        kept = [line for line in text.splitlines() if line.strip()]
        return "\n".join(kept[-count:]) or "(nothing)"

    def _read(self) -> None:
        assert self._process.stdout is not None
        whole = 0  # characters of _text that _lines holds already
        with self._process.stdout as serial, self.log.open("wb") as log:
            while chunk := serial.read1(65536):  # type: ignore[attr-defined]
                log.write(chunk)
                log.flush()
                text = _CONTROL.sub("", chunk.decode("utf-8", "replace"))
                with self._more:
                    self._echoed = True
                    self._text += text
                    end = self._text.rfind("\n") + 1
                    moment = time.time()
                    self._lines += [(moment, line) for line in self._text[whole:end].splitlines()]
                    whole = max(whole, end)
                    self._more.notify_all()
        with self._more:
            self._more.notify_all()


def _debug_console(directory: Path) -> tuple[str, ...]:
    file = f"file,id=debug,path={directory / _DEBUG}"
    return ("-chardev", file, "-device", "isa-debugcon,iobase=0xe9,chardev=debug")


def power_on(firmware: Firmware, segment: Segment, mac: str, directory: Path, options: Sequence[str] = ()) -> Machine:
    """Start a machine with its card on `segment`. directory: where its variable store and its logs go.

    options  further ones for QEMU, which outrank ours where they say the same: a processor, memory, disks
    Raises LabError when QEMU or the firmware is missing, with the packages to install.
    """
    if firmware.missing:
        raise LabError(f"{firmware.title} needs: apt-get install {' '.join(firmware.missing)}")
    directory.mkdir(parents=True, exist_ok=True)
    variables = directory / "variables.fd"
    if firmware.variables:
        subprocess.run(["cp", "--sparse=always", firmware.variables, variables], check=True)
    argv = [
        firmware.program,
        "-nodefaults",
        "-no-reboot",
        *("-accel", "tcg"),
        *("-display", "none"),
        *("-m", str(firmware.memory)),
        *(option.replace("{vars}", str(variables)) for option in firmware.options),
        *("-device", "virtio-rng-pci"),
        *("-netdev", f"tap,id=net0,ifname={segment.tap()},script=no,downscript=no"),
        *("-device", f"{firmware.card},netdev=net0,mac={mac},bootindex=0"),
        *("-chardev", "stdio,id=serial,signal=off"),
        *("-serial", "chardev:serial"),
        *(_debug_console(directory) if firmware.program == _X64 else ()),
        *options,
    ]
    with (directory / _COMPLAINTS).open("wb") as errors:
        process = segment.network.wire.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    return Machine(firmware, mac, process, directory / "serial.log")
