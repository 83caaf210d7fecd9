"""What a boot program is told by whoever serves it: a block at a fixed place of the file, filled in on its way out.

The block begins at octet 4 of every BIOS program (bios/start.S), and where its first eight octets are in an EFI program
(efi/boot.c); a program without it is served as it is. Numbers are little-endian, but for the address; places are those
of BIOS programs:

    4    8    "BWparam1"
    12   4    server, in network order; 0: the one the cached DHCP packets name
    16   2    UDP port of reports, 0 for none
    18   2    UDP port of bootinfo
    20   1    what to fall back to
    21   1    tries of one question
    22   2    seconds to leave what is on the screen at the end; a key ends them
    24   128  TFTP name of the next network program, NUL-terminated, empty for none
    152  40   text for the screen, NUL-terminated
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Literal

from bootwire.wire import bootinfo, report

Fallback = Literal["next-program", "next-device", "local-disk", "reboot", "hold"]
"""What a program does when there is nothing else to do.

next-program  the network program that `next` names
next-device   back to the firmware, which tries its next boot device
local-disk    the boot record of the first disk
reboot        start over
hold          stop, and leave what is on the screen
"""

FALLBACKS: Final[tuple[Fallback, ...]] = ("next-program", "next-device", "local-disk", "reboot", "hold")
MAGIC: Final = b"BWparam1"
AT: Final = 4  # octet of the file
MAX_NEXT: Final = 127  # octets: PXE 2.1 FileName[128] with its NUL
MAX_MESSAGE: Final = 39
LARGEST: Final = 480 << 10  # octets: free base memory of a PC that booted from the network (PXE-E79)

_BLOCK = struct.Struct("<8s4sHHBBH128s40s")


@dataclass(frozen=True, slots=True)
class Parameters:
    """server: four octets, zeros for the one that DHCP named; next and message: as the machine reads them, ASCII.

    tries: 1..16, of one question, each waiting twice as long as the one before; pause: seconds, 0..3600
    """

    next: str = ""
    fallback: Fallback = "next-device"
    tries: int = 5
    pause: int = 0
    server: bytes = bytes(4)
    report_port: int = report.PORT
    bootinfo_port: int = bootinfo.SERVER_PORT
    message: str = ""


def has_parameters(program: bytes) -> bool:
    """Whether this file has a block to fill in."""
    return _at(program) >= 0


def _at(program: bytes) -> int:
    """Where the block begins, -1 for none."""
    at = program.find(MAGIC) if program.startswith(b"MZ") else AT if program[AT : AT + len(MAGIC)] == MAGIC else -1
    return at if len(program) >= at + _BLOCK.size else -1


def fill(program: bytes, parameters: Parameters) -> bytes:
    """The program with these parameters in its block; as it is if it has none. ValueError: no room."""
    if (at := _at(program)) < 0:
        return program
    p = parameters
    texts = [p.next.encode("ascii", "replace"), p.message.encode("ascii", "replace")]
    for text, most, what in zip(texts, (MAX_NEXT, MAX_MESSAGE), ("next program", "message"), strict=True):
        if len(text) > most or b"\0" in text:
            raise ValueError(f"the {what} has {len(text)} octets, at most {most} fit, and no NUL")
    if not (1 <= p.tries <= 16 and 0 <= p.pause <= 3600 and len(p.server) == 4):
        raise ValueError("tries are 1 to 16, a pause is 0 to 3600 seconds, a server has 4 octets")
    fallback = FALLBACKS.index(p.fallback)
    try:
        block = _BLOCK.pack(
            MAGIC, p.server, p.report_port, p.bootinfo_port, fallback, p.tries, p.pause, texts[0], texts[1]
        )
    except struct.error as error:
        raise ValueError(f"a port out of range: {error}") from None
    return program[:at] + block + program[at + _BLOCK.size :]


def read(program: bytes) -> Parameters | None:
    """What a file's block says, None if it has none or says what no Parameters can."""
    if (at := _at(program)) < 0:
        return None
    _, server, report_port, bootinfo_port, fallback, tries, pause, name, message = _BLOCK.unpack_from(program, at)
    if fallback >= len(FALLBACKS):
        return None
    texts = [text.split(b"\0")[0].decode("ascii", "replace") for text in (name, message)]
    return Parameters(texts[0], FALLBACKS[fallback], tries, pause, server, report_port, bootinfo_port, texts[1])
