"""What the doctor reads in loaders and scripts, and what it makes of transfers: the pure parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootwire.serve.doctor import judge, programs
from bootwire.serve.doctor.causes import CAUSES
from bootwire.serve.doctor.page import document
from bootwire.serve.doctor.seen import Clock, Echoes, Fetch, Report, Resolved, Six, Web

SHIM = Path("/usr/lib/shim/shimx64.efi")
NEEDS_SHIM = pytest.mark.skipif(not SHIM.exists(), reason="needs Debian's shim-signed")


def efi(machine: int = 0x8664) -> bytes:
    """The headers of an EFI application."""
    image = bytearray(1024)
    image[:2], image[0x3C:0x40] = b"MZ", (0x80).to_bytes(4, "little")
    image[0x80:0x84], image[0x84:0x86] = b"PE\0\0", machine.to_bytes(2, "little")
    image[0x94:0x96], image[0x98:0x9A] = (240).to_bytes(2, "little"), (0x20B).to_bytes(2, "little")
    image[0x98 + 68 : 0x98 + 70] = (10).to_bytes(2, "little")
    image[0x98 + 108 : 0x98 + 112] = (16).to_bytes(4, "little")
    return bytes(image)


@pytest.mark.parametrize(
    ("data", "architecture"),
    [
        (efi(), "x86_64"), (efi(0xAA64), "arm64"), (efi(0x1234), "machine 0x1234"),
        (b"\xea\0\x7c\0\0" + bytes(99), "bios"),
        (b"<html>", ""), (b"", ""), (b"MZ", ""), (efi()[:90], ""),
    ],
)  # fmt: skip
def test_for_whom_a_program_is(data: bytes, architecture: str) -> None:
    program = programs.read("tftp://192.0.2.1/x", data)
    assert (program.architecture, program.octets, program.signers) == (architecture, len(data), ())


@NEEDS_SHIM
def test_who_signed_shim_and_what_it_starts_unsigned() -> None:
    signed = SHIM.with_suffix(".efi.signed").read_bytes()
    chain = programs.started(
        "uefi", [("tftp://192.0.2.1/shimx64.efi", signed), ("tftp://192.0.2.1/grubx64.efi", efi())]
    )
    assert [one.kind for one in chain] == ["shim", "efi"]
    assert any("Microsoft" in name for name in chain[0].signers)
    assert chain[0].sbat
    assert not programs.read("", SHIM.read_bytes()).signers
    assert not chain[1].signers


def test_a_script_names_what_it_needs() -> None:
    script = (
        b"#!ipxe\nset base http://192.0.2.9\nkernel --name k vmlinuz quiet\ninitrd http://192.0.2.1/i.img\n"
        b"initrd ${base}/other\nkernel missing || goto next\nimgfetch tftp://192.0.2.1/x\nchain /menu.ipxe\n"
    )
    assert list(programs.scripted("http://192.0.2.1/a/boot.ipxe", script)) == [
        ("kernel", "http://192.0.2.1/a/vmlinuz"),
        ("initrd", "http://192.0.2.1/i.img"),
        ("", "http://192.0.2.1/menu.ipxe"),
    ]
    assert not list(programs.scripted("http://192.0.2.1/a", b"kernel vmlinuz"))
    assert not list(programs.scripted("tftp://192.0.2.1/a", b"#!ipxe\nkernel vmlinuz"))


def transfer(block: int, window: int = 1, why: str = "") -> Fetch:
    return Fetch("192.0.2.1", "loader.0", block, window, 0 if why else 99, 0.1, 0, why, why)


@pytest.mark.parametrize(
    ("mine", "causes"),
    [
        ([transfer(512)], []),
        ([transfer(512, why="no service")], ["tftp-no-service"]),
        ([transfer(512, why="silent")], ["tftp-blocked"]),
        ([transfer(512, why="prohibited")], ["tftp-blocked"]),
        ([transfer(512, why="error")], ["file-missing"]),
        ([transfer(512, why="forbidden")], ["file-forbidden"]),
        ([transfer(512), transfer(1468, why="silent"), transfer(1468, 4, "silent")], ["tftp-large-blocks"]),
        ([transfer(512), transfer(1468), transfer(1468, 4, "silent")], ["tftp-windows"]),
        ([transfer(512), transfer(1468), transfer(1468, 4, "silent"), transfer(1468, 16)], []),
    ],
)
def test_tftp(mine: list[Fetch], causes: list[str]) -> None:
    assert [one.finding.cause for one in judge.of_tftp(mine)] == causes


def web(**fields: object) -> Web:
    given = {
        "role": "initrd",
        "server": "192.0.2.1",
        "port": 80,
        "status": 200,
        "length": 9,
        "octets": 9,
        "seconds": 1.0,
    }
    return Web("http://192.0.2.1/i.img", **(given | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "causes"),
    [
        (web(), []),
        (web(why="refused"), ["http-refused"]),
        (web(why="silent"), ["http-blocked"]),
        (web(why="prohibited"), ["http-blocked"]),
        (web(why="unreachable"), ["http-unreachable"]),
        (web(why="name"), ["dns-failing"]),
        (web(why="status", status=404), ["initrd-missing"]),
        (web(why="status", status=404, role="kernel"), ["kernel-missing"]),
        (web(why="status", status=403, had=True), ["http-for-the-machine"]),
        (web(why="status", status=500), ["http-error"]),
        (web(why="short", octets=4), ["http-broke-off"]),
        (web(why="broken"), ["http-damaged"]),
        (web(length=-1), ["http-no-length"]),
        (web(octets=8 << 20, seconds=60.0), ["http-slow"]),
        (web(octets=8 << 20, ranges=False), ["http-no-ranges"]),
    ],
)
def test_http(one: Web, causes: list[str]) -> None:
    assert [each.finding.cause for each in judge.of_web(one)] == causes


def resolved(server: str, *addresses: str, name: str = "boot.lan", why: str = "") -> Resolved:
    return Resolved(server, name, addresses, 0.1, why)


@pytest.mark.parametrize(
    ("found", "causes"),
    [
        ([resolved("192.0.2.1", "192.0.2.9"), resolved("192.0.2.2", "192.0.2.9")], []),
        ([resolved("192.0.2.1", "192.0.2.9"), resolved("192.0.2.2", "192.0.2.8")], ["dns-differs"]),
        ([resolved("192.0.2.1", why="no such name")], ["dns-failing"]),
        ([resolved("192.0.2.1", why="silent")], ["dns-unanswered"]),
        ([resolved("192.0.2.1", name="localhost", why="no such name")], []),
        ([resolved("192.0.2.1", name="localhost", why="silent")], ["dns-unanswered"]),
    ],
)
def test_name_servers(found: list[Resolved], causes: list[str]) -> None:
    told = [one.finding for one in judge.of_names(found)]
    assert [one.cause for one in told] == causes
    if found[0].why == "silent":
        assert told[0].severity == ("warning" if found[0].name == "localhost" else "error")


@pytest.mark.parametrize(
    ("offset", "causes"),
    [(None, ["time-server-silent"]), (59.0, []), (-61.0, ["clock-skew"]), (90_000.0, ["clock-skew"])],
)
def test_clocks(offset: float | None, causes: list[str]) -> None:
    assert [one.finding.cause for one in judge.of_clock(Clock("192.0.2.1", "NTP", offset))] == causes


@pytest.mark.parametrize(
    ("seconds", "said"), [(5.4, "5 s"), (-600.0, "10 min"), (9000.0, "2.5 h"), (-864_000.0, "10 days")]
)
def test_durations(seconds: float, said: str) -> None:
    assert judge.duration(seconds) == said


@pytest.mark.parametrize(
    ("six", "four", "causes"),
    [
        (Six(), True, ["ipv4-only"]),
        (Six(), False, []),
        (Six(routers=("fe80::1",)), True, ["ipv6-no-boot"]),
        (Six(routers=("fe80::1",)), False, ["ipv6-only", "ipv6-no-boot"]),
        (Six(answered=True, boot_url="tftp://[fd00::1]/x"), True, ["ipv6-no-router"]),
        (
            Six(("fe80::1",), answered=True, boot_url="tftp://[fd00::1]/x", boot_trouble="gone"),
            True,
            ["ipv6-boot-fails"],
        ),
    ],
)
def test_ipv6(six: Six, four: bool, causes: list[str]) -> None:
    assert [one.finding.cause for one in judge.of_six(six, four)] == causes


@pytest.mark.parametrize(
    ("times", "sent", "causes"),
    [
        ((0.001,) * 10, 10, []),
        ((0.001,) * 9, 10, []),
        ((0.001,) * 30, 40, ["packet-loss"]),
        ((0.03,) * 10, 10, ["slow-network"]),
    ],
)
def test_round_trips(times: tuple[float, ...], sent: int, causes: list[str]) -> None:
    report = Report(echoes=[Echoes("192.0.2.1", ("boot server",), sent, times, "silent" if sent > len(times) else "")])
    found = judge.findings(report)
    assert [one.cause for one, _ in found] == causes
    assert "192.0.2.1" in document(report, found, "now")


def test_every_cause_can_be_told() -> None:
    """Placeholders are names; a cause of the doctor's own says what it is, what to do and where that is known from."""
    for cause in CAUSES.values():
        assert cause.because
        assert cause.fix
        assert cause.source
