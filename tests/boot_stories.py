"""Whole boots as facts, for tests of what is shown of them."""

from __future__ import annotations

from collections.abc import Callable

from bootwire import facts
from bootwire.facts import Fact, Record

US, DHCP = "10.77.0.1", "10.77.0.2"
EPOCH = 10**15
WALL = 1_700_000_000.0

Story = list[tuple[float, Fact]]


def mac(number: int) -> str:
    return f"52:54:00:77:{number // 256:02x}:{number % 256:02x}"


def address(number: int) -> str:
    return f"10.77.{16 + number // 250}.{number % 250 + 1}"


def booted(number: int = 0, initrd: int = 40_700_000) -> Story:
    """UEFI PXE to a kernel that asks for its lease."""
    machine, at = mac(number), address(number)
    file = f"{machine.replace(':', '-')}/x86_64/snponly.efi"
    return [
        (0.0, facts.Discovered(machine, "UEFI x64", 7, "", 1, "eth0", vendor_class="PXEClient:Arch:00007")),
        (0.1, facts.Offered(machine, "binl", file, US, "eth0", "EDK2 asks port 4011")),
        (1.0, facts.AddressSeen(machine, at, DHCP)),
        (1.1, facts.PxeRequested(machine, "UEFI x64", at, 68)),
        (1.2, facts.PxeAnswered(machine, file, US, at, "UEFI x64")),
        (1.3, facts.TransferStarted(machine, "tftp", "x86_64/snponly.efi", at, 289_000, "blksize 1468")),
        (1.6, facts.TransferDone(machine, "tftp", "x86_64/snponly.efi", at, 289_000, 0.3, 1_468)),
        (3.0, facts.ScriptServed(machine, "autoexec.ipxe", at, "iPXE", "iPXE looks for it beside itself")),
        (4.0, facts.Discovered(machine, "iPXE 2.0.0 UEFI x64", 7, "", 2, "eth0", user_class="iPXE")),
        (4.1, facts.Offered(machine, "ipxe", f"http://{US}/boot.ipxe", US, "eth0", "it can do all that it needs")),
        (5.0, facts.ScriptServed(machine, "boot.ipxe", at, "iPXE 2.0.0 efi x86_64", "everybody gets this kernel")),
        (5.1, facts.TransferStarted(machine, "http", "kernel", at, 12_100_000)),
        (6.0, facts.TransferDone(machine, "http", "kernel", at, 12_100_000, 0.9)),
        (6.1, facts.TransferStarted(machine, "http", "initrd/0", at, initrd)),
        (9.0, facts.TransferDone(machine, "http", "initrd/0", at, initrd, 2.9)),
        (9.1, facts.HandedOver(machine, at, 12_100_000 + initrd, 4.1)),
        (15.0, facts.Silent(machine, "dhcp", "it does not ask for a network boot", "ordinary host")),
    ]


def refused(number: int = 0) -> Story:
    """The loader is fetched and never runs."""
    return booted(number)[:7]


def hostile(number: int = 0) -> Story:
    """A machine whose every text tries to be markup, script or a terminal's command."""
    evil = '<img src=x onerror=alert(1)><script>document.title="owned"</script>"\' & ${7*7} {{7*7}}'
    machine, at = mac(number), address(number)
    return [
        (0.0, facts.Discovered(machine, evil, 7, evil, 1, evil, vendor_class=evil, user_class=evil)),
        (0.1, facts.Offered(machine, "binl", evil, evil, "eth0", evil)),
        (0.5, facts.AddressSeen(machine, at, evil)),
        (1.0, facts.TransferStarted(machine, "tftp", evil, at, 1_000, evil)),
        (2.0, facts.TransferFailed(machine, "tftp", evil, at, 10, 1.0, evil)),
        (2.5, facts.NotFound(machine, "tftp", evil, at, evil)),
        (3.0, facts.ConsoleSaid(machine, at, evil)),
    ]


def records(story: Story, start: float = 0.0, epoch: int = EPOCH) -> list[Record]:
    return [Record(WALL + start + second, epoch + round((start + second) * 1e9), fact) for second, fact in story]


def tell(story: Story, record: Callable[[Fact], None]) -> None:
    """Every fact at once, as a journal takes it."""
    for _, fact in story:
        record(fact)
