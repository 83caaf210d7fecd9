"""The serial port of a machine, played by small shell scripts: what is kept of it, and when waiting ends."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootwire.lab.firmware import FIRMWARE, Machine
from bootwire.lab.network import LabError

MAC = "52:54:00:77:00:01"


Start = Callable[[str], Machine]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Start]:
    """A machine whose serial port is what a script writes and reads."""
    running: list[Machine] = []

    def start(script: str) -> Machine:
        process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        running.append(Machine(FIRMWARE["bios"], MAC, process, tmp_path / "serial.log"))
        return running[-1]

    yield start
    for one in running:
        one.end()


def test_control_sequences_are_left_out_of_the_text_and_kept_in_the_log(machine: Start, tmp_path: Path) -> None:
    one = machine(r"printf '\033[2J\033[0;36miPXE\033[0m says\r\nhello\r\n'")
    assert one.wait_end(10)
    assert one.text.split() == ["iPXE", "says", "hello"]
    assert [line.strip() for _, line in one.lines()] == ["iPXE says", "hello"]
    assert b"\x1b[2J" in (tmp_path / "serial.log").read_bytes()


def test_waiting_finds_what_comes_later(machine: Start) -> None:
    one = machine("echo first; read line; echo second")
    one.wait_for("first", 10)
    assert one.said("second") is None
    one.type("\n")
    assert one.wait_for("sec(ond)", 10)[1] == "ond"
    assert one.wait_end(10)


@pytest.mark.parametrize(
    "last",
    [
        "No bootable device.",
        'BdsDxe: failed to load Boot0001 "UEFI PXEv4 (MAC:525400770001)" from PciRoot(0x0): Not Found',
        "UEFI Interactive Shell v2.2",
        "Kernel panic - not syncing: VFS: Unable to mount root fs",
    ],
)
def test_waiting_ends_when_the_firmware_gives_up(machine: Start, last: str) -> None:
    one = machine(f"echo '{last}'; exec sleep 600")
    began = time.monotonic()
    with pytest.raises(LabError, match="was not seen"):
        one.wait_for("Kernel command line", 300)
    assert time.monotonic() - began < 60
    assert one.failed


def test_another_way_to_boot_that_fails_is_not_giving_up(machine: Start) -> None:
    one = machine("echo 'BdsDxe: failed to load Boot0002 \"UEFI Misc Device\"'; read line; echo booted")
    one.wait_for("Boot0002", 10)
    assert not one.failed
    one.type("\n")
    one.wait_for("booted", 10)


def test_why_qemu_did_not_start_is_told(machine: Start, tmp_path: Path) -> None:
    (tmp_path / "qemu.err").write_text("qemu-system-x86_64: could not configure /dev/net/tun\n")
    with pytest.raises(LabError, match="could not configure /dev/net/tun"):
        machine("exit 1").wait_for("Kernel command line", 300)


def test_waiting_ends_when_the_machine_has_ended_and_says_what_it_said(machine: Start) -> None:
    one = machine("echo all it ever said")
    with pytest.raises(LabError, match="all it ever said"):
        one.wait_for("Kernel command line", 300)
