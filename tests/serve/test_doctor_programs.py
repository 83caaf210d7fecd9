"""What the doctor reads in loaders and scripts, and what it makes of transfers: the pure parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootwire.serve.doctor import judge, programs
from bootwire.serve.doctor.causes import CAUSES
from bootwire.serve.doctor.seen import Fetch, Web

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


def test_every_cause_can_be_told() -> None:
    """Placeholders are names; a cause of the doctor's own says what it is, what to do and where that is known from."""
    for cause in CAUSES.values():
        assert cause.because
        assert cause.fix
        assert cause.source
