"""bootinfo, the question that a testbed's machines ask before any operating system: what shall I do?

The datagrams are those of Emulab and Deter, octet by octet: `pxe/bootwhat.h` of emulab-stable gives the layout, its
`pxe/main.c`, `bootinfo_mysql.c` and `bootinfosend.c` what servers write, deterboot and emuboot what clients read. There
is no RFC. Every datagram has 520 octets; numbers are little-endian (x86 in host order), the one address is in network
order:

    0    int16   version      0 old, 1 current
    2    int16   opcode
    4    int32   status       0 success, 1 failure
    8    512     data         zeros or a host key in requests; in replies and orders:
    8    int16   flags        never set by any server seen
    10   int16   type         what to do
    12   260     its values   numbers of 4 octets, an address and a file, or a path
    272  224     command line, NUL-terminated

Reading is total and bounded: 520 octets are needed (a short datagram would be answered with more than it brought) and
no more are looked at. What stands behind a NUL or behind a type's own values is left over from the sender's buffer and
dropped.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, assert_never

from bootwire.wire.ip import v4_octets, v4_text
from bootwire.wire.reader import WireError

SERVER_PORT: Final = 6969  # BOOTWHAT_DSTPORT: requests go there, replies come from there
CLIENT_PORT: Final = 9696  # BOOTWHAT_SRCPORT: replies and orders go there, whatever port a request came from
ORDER_PORT: Final = 6970  # BOOTWHAT_SENDPORT: orders come from there

SIZE: Final = 520  # octets of every datagram: sizeof(boot_info_t)
CURRENT: Final = 1  # BIVERSION_CURRENT
OLD: Final = 0  # BIVERSION_OLD: clients that do not know WAIT (bootinfo_mysql.c never answers it to them)

SUCCESS: Final = 0  # BISTAT_SUCCESS
FAIL: Final = 1  # BISTAT_FAIL

# BIOPCODE_*
REQUEST: Final = 1
REPLY: Final = 2
ACK: Final = 3
ORDER: Final = 4
INFO: Final = 5
KEYED_REQUEST: Final = 6

# BIBOOTWHAT_TYPE_*
PARTITION: Final = 1
SYSTEM_ID: Final = 2
MULTIBOOT: Final = 3
WAIT: Final = 4
REBOOT: Final = 5
AUTO: Final = 6
MEMORY_FS: Final = 7
RESTART: Final = 8
DISK_PARTITION: Final = 9

MAX_PATH: Final = 255  # octets: char[256] with its NUL
MAX_COMMAND_LINE: Final = 223  # octets: MAX_BOOT_CMDLINE is 224 with the NUL
MAX_KEY: Final = 128  # octets: HOSTKEY_LENGTH is 129 with the NUL

_HEADER = struct.Struct("<hhi")
_WHAT = struct.Struct("<hh")
_ONE = struct.Struct("<i")
_TWO = struct.Struct("<ii")
_DATA = 8  # where data begins
_VALUES = 12  # where a type's values begin
_COMMAND_LINE = 272  # where the command line begins


# --- what to do --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Partition:
    """Chain to a partition's boot record, on the disk the client takes for its first. number: 0 is the MBR."""

    number: int


@dataclass(frozen=True, slots=True)
class SystemId:
    """Chain to the first partition with this MBR system id, 0..255 where it makes sense: 131 Linux, 165 FreeBSD."""

    number: int


@dataclass(frozen=True, slots=True)
class Multiboot:
    """Load a file and start it. server: dotted, "0.0.0.0" if the client is to know; file: at most MAX_PATH octets."""

    server: str
    file: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Stay where you are, an order will come."""


@dataclass(frozen=True, slots=True)
class Reboot:
    """Start over from the firmware."""


@dataclass(frozen=True, slots=True)
class Auto:
    """Ask again."""


@dataclass(frozen=True, slots=True)
class MemoryFs:
    """Load a memory file system: "HOST:/PATH", "/PATH" of the server, or a URL (Deter). At most MAX_PATH octets."""

    path: bytes


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the boot program over, from its DHCP: another server may be meant for it now."""


@dataclass(frozen=True, slots=True)
class DiskPartition:
    """Chain to a partition's boot record. disk: as the BIOS counts them, 0x80 is the first; partition: 0 is the MBR."""

    disk: int
    partition: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """Any other type; 0, without values, in a reply that says FAIL.

    values  at most 260 octets, the last one no NUL
    """

    type: int = 0
    values: bytes = b""


Action = Partition | SystemId | Multiboot | Wait | Reboot | Auto | MemoryFs | Restart | DiskPartition | Unknown


@dataclass(frozen=True, slots=True)
class Boot:
    """boot_what_t. command_line: at most MAX_COMMAND_LINE octets without a NUL; flags: -32768..32767.

    A command line counts when it is there: FLAGS_CMDLINE (1) is defined, but no server sets it.
    """

    action: Action
    command_line: bytes = b""
    flags: int = 0


# --- messages ----------------------------------------------------------------------------------------------------
# version is -32768..32767, status a signed 32-bit number. data: what follows, at most 512 octets, no NUL at the end.


@dataclass(frozen=True, slots=True)
class Request:
    """A machine asks. Plain clients send no data."""

    data: bytes = b""
    version: int = CURRENT
    status: int = SUCCESS


@dataclass(frozen=True, slots=True)
class Info:
    """Asked and answered like a Request (main.c)."""

    data: bytes = b""
    version: int = CURRENT
    status: int = SUCCESS


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A machine asks and says who it is by its host key, readable by everybody on the way; at most MAX_KEY octets."""

    key: bytes
    version: int = CURRENT
    status: int = SUCCESS


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer. With status FAIL there is none, and the action is Unknown()."""

    boot: Boot
    version: int = CURRENT
    status: int = SUCCESS


@dataclass(frozen=True, slots=True)
class Order:
    """To a machine that waits."""

    boot: Boot
    version: int = CURRENT
    status: int = SUCCESS


@dataclass(frozen=True, slots=True)
class Ack:
    """An order was taken (ours), or a disk was written (OSKit netdisk). Nobody answers it."""

    data: bytes = b""
    version: int = CURRENT
    status: int = SUCCESS


@dataclass(frozen=True, slots=True)
class Other:
    """Any other opcode, -32768..32767."""

    opcode: int
    data: bytes = b""
    version: int = CURRENT
    status: int = SUCCESS


Message = Request | Info | KeyedRequest | Reply | Order | Ack | Other


def parse(datagram: bytes) -> Message:
    """Read one UDP payload, of any length and hostile. Raises WireError; octets behind the 520th are dropped."""
    if len(datagram) < SIZE:
        raise WireError(f"bootinfo of {len(datagram)} octets, not {SIZE}", len(datagram))
    datagram = datagram[:SIZE]
    version, opcode, status = _HEADER.unpack_from(datagram)
    match opcode:
        case 1:
            return Request(_data(datagram), version, status)
        case 2:
            return Reply(_boot(datagram), version, status)
        case 3:
            return Ack(_data(datagram), version, status)
        case 4:
            return Order(_boot(datagram), version, status)
        case 5:
            return Info(_data(datagram), version, status)
        case 6:
            return KeyedRequest(_text(datagram, _DATA, MAX_KEY, "host key"), version, status)
        case _:
            return Other(opcode, _data(datagram), version, status)


def emit(message: Message) -> bytes:
    """Write the 520 octets; `parse(emit(m)) == m` for every value that keeps to the ranges above.

    Raises ValueError for a text that has no room or holds a NUL, and for a number out of range.
    """
    match message:
        case Request(data):
            opcode = REQUEST
        case Reply(boot):
            opcode, data = REPLY, _emit_boot(boot)
        case Ack(data):
            opcode = ACK
        case Order(boot):
            opcode, data = ORDER, _emit_boot(boot)
        case Info(data):
            opcode = INFO
        case KeyedRequest(key):
            opcode, data = KEYED_REQUEST, _fits(key, MAX_KEY, "host key")
        case Other(opcode, data):
            pass
        case never:
            assert_never(never)
    if len(data) > SIZE - _DATA:
        raise ValueError(f"{len(data)} octets of data, at most {SIZE - _DATA} fit")
    try:
        return _HEADER.pack(message.version, opcode, message.status) + data.ljust(SIZE - _DATA, b"\0")
    except struct.error as error:
        raise ValueError(f"version, opcode or status out of range: {error}") from None


def check(boot: Boot) -> Boot:
    """The same value, or ValueError: texts and numbers are as `emit` can write them."""
    _emit_boot(boot)
    return boot


def _data(datagram: bytes) -> bytes:
    return datagram[_DATA:].rstrip(b"\0")


def _text(datagram: bytes, at: int, most: int, what: str) -> bytes:
    """Octets up to a NUL that has to be there: a text cut short is not what its sender meant."""
    end = datagram.find(b"\0", at, at + most + 1)
    if end < 0:
        raise WireError(f"{what} of more than {most} octets", at)
    return datagram[at:end]


def _boot(datagram: bytes) -> Boot:
    flags, kind = _WHAT.unpack_from(datagram, _DATA)
    action: Action
    match kind:
        case 1:
            action = Partition(*_ONE.unpack_from(datagram, _VALUES))
        case 2:
            action = SystemId(*_ONE.unpack_from(datagram, _VALUES))
        case 3:
            server = v4_text(datagram[_VALUES : _VALUES + 4])
            action = Multiboot(server, _text(datagram, _VALUES + 4, MAX_PATH, "multiboot file"))
        case 4:
            action = Wait()
        case 5:
            action = Reboot()
        case 6:
            action = Auto()
        case 7:
            action = MemoryFs(_text(datagram, _VALUES, MAX_PATH, "memory file system path"))
        case 8:
            action = Restart()
        case 9:
            action = DiskPartition(*_TWO.unpack_from(datagram, _VALUES))
        case _:
            action = Unknown(kind, datagram[_VALUES:_COMMAND_LINE].rstrip(b"\0"))
    return Boot(action, _text(datagram, _COMMAND_LINE, MAX_COMMAND_LINE, "command line"), flags)


def _emit_boot(boot: Boot) -> bytes:
    try:
        match boot.action:
            case Partition(number):
                kind, values = PARTITION, _ONE.pack(number)
            case SystemId(number):
                kind, values = SYSTEM_ID, _ONE.pack(number)
            case Multiboot(server, file):
                kind, values = MULTIBOOT, v4_octets(server) + _fits(file, MAX_PATH, "multiboot file")
            case Wait():
                kind, values = WAIT, b""
            case Reboot():
                kind, values = REBOOT, b""
            case Auto():
                kind, values = AUTO, b""
            case MemoryFs(path):
                kind, values = MEMORY_FS, _fits(path, MAX_PATH, "memory file system path")
            case Restart():
                kind, values = RESTART, b""
            case DiskPartition(disk, partition):
                kind, values = DISK_PARTITION, _TWO.pack(disk, partition)
            case Unknown(kind, values):
                if len(values) > _COMMAND_LINE - _VALUES:
                    raise ValueError(f"{len(values)} octets of values, at most {_COMMAND_LINE - _VALUES} fit")
            case never:
                assert_never(never)
        head = (_WHAT.pack(boot.flags, kind) + values).ljust(_COMMAND_LINE - _DATA, b"\0")
    except struct.error as error:
        raise ValueError(f"a number out of range: {error}") from None
    return head + _fits(boot.command_line, MAX_COMMAND_LINE, "command line")


def _fits(text: bytes, most: int, what: str) -> bytes:
    if len(text) > most:
        raise ValueError(f"a {what} of {len(text)} octets, at most {most} fit")
    if b"\0" in text:
        raise ValueError(f"a {what} with a NUL in it")
    return text
