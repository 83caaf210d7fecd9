"""The clients that testbeds have, by their rules: what they send, what they believe, and what they do then.

Written from descriptions of emulab-stable's `pxe/bootinfoclient.c` and `pxe/freebsd/sysboot.diffs` (emuboot) and of
deterboot's `com32/deterboot/`, from raw octets; nothing of ours is used. A peer lives in virtual or real time: whoever
runs it sends what `sends` holds, and calls `receive` and `tick`. `did` is what it came to.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

REQUEST, REPLY, ORDER = 1, 2, 4
PART, SYSID, MB, WAIT, REBOOT, AUTO, MFS, RESTART, DISKPART = range(1, 10)
S = 1_000_000_000

QUESTION = struct.pack("<hhi", 1, REQUEST, 0) + bytes(512)


def read(data: bytes) -> tuple[int, int, int, bytes, bytes]:
    """opcode, status, type, the type's values, the command line."""
    _, opcode, status = struct.unpack_from("<hhi", data)
    _, kind = struct.unpack_from("<hh", data, 8)
    return opcode, status, kind, data[12:272], data[272:520].split(b"\0", 1)[0]


def text(values: bytes) -> str:
    return values.split(b"\0", 1)[0].decode()


def number(values: bytes, at: int = 0) -> int:
    (value,) = struct.unpack_from("<i", values, at)
    return value


@dataclass
class Peer:
    """server: dotted. sends: (octets, our port; 0 is an ephemeral one) to send to port 6969, to be taken away."""

    server: str
    did: str = ""
    asked: int = 0
    listens: bool = True  # on port 9696
    deadline: int | None = None
    sends: list[tuple[bytes, int]] = field(default_factory=list)
    port = 9696

    def start(self, now: int) -> None:
        self.ask(now)

    def ask(self, now: int) -> None:
        self.asked += 1
        self.sends.append((QUESTION, self.port))

    def receive(self, data: bytes, source: tuple[str, int], now: int) -> None:
        raise NotImplementedError

    def tick(self, now: int) -> None:
        raise NotImplementedError


@dataclass
class BootinfoClient(Peer):
    """The Unix one: believes anything, waits 5 s, sleeps 5 s, asks again, for ever."""

    waits: bool = False

    def ask(self, now: int) -> None:
        super().ask(now)
        self.deadline = now + 10 * S

    def receive(self, data: bytes, source: tuple[str, int], now: int) -> None:
        _, _, kind, values, line = read(data)
        if kind == PART:
            self._print(f"partition:{number(values)}" + (f" {line.decode()}" if line else ""))
        elif kind == MFS:
            self._print(f"mfs:{text(values)}")
        elif kind == REBOOT:
            self._print("reboot")
        elif kind == WAIT:
            self.deadline = None
        else:
            self.deadline = now + 5 * S

    def tick(self, now: int) -> None:
        self.ask(now)

    def _print(self, line: str) -> None:
        self.did, self.deadline = line, None


@dataclass
class Emuboot(Peer):
    """libstand's sendrecv with MINTMO 2 and MAXTMO 40: at 0, 2, 6, 14 and 30 s, over at 62 s; strict about sources."""

    step: int = 0
    waits: bool = False

    def ask(self, now: int) -> None:
        super().ask(now)
        self.step = 2 if not self.step else min(self.step * 2, 40)
        self.deadline = now + self.step * S

    def tick(self, now: int) -> None:
        if self.waits:
            self.deadline = now + 2 * S
        elif self.step >= 32:
            self._end("default boot: no answer")
        else:
            self.ask(now)

    def receive(self, data: bytes, source: tuple[str, int], now: int) -> None:
        if source != (self.server, 6970 if self.waits else 6969) or len(data) != 520:
            return
        opcode, status, kind, values, line = read(data)
        if opcode not in (REPLY, ORDER):
            return
        if status != 0:
            self._end("default boot: EINVAL")
        elif kind == WAIT:
            self.waits, self.deadline = True, now + 2 * S
        elif kind == AUTO:
            self.waits, self.step = False, 0
            self.ask(now)
        elif kind == REBOOT:
            self._end("reboot")
        elif kind == PART:
            self._end(f"part {number(values)} [{line.decode()}]")
        elif kind == SYSID:
            self._end(f"sysid {number(values)}")
        elif kind == MB:
            self._end(f"multiboot {'.'.join(map(str, values[:4]))} {text(values[4:])}")
        elif kind == MFS:
            self._end(f"load {text(values)} [{line.decode()}]")
        elif kind == DISKPART:
            self._end(f"disk {number(values):#x} part {number(values, 4)}")
        else:
            self._end("invalid")

    def _end(self, how: str) -> None:
        self.did, self.deadline = how, None


@dataclass
class Deterboot(Peer):
    """deterboot-test.c32: one socket asks, another one, bound to 9696 while it asks, blocks for the reply for ever."""

    port = 0
    CONSOLES = "BOOT=live console=ttyS0,115200, console=ttyS1,115200, console=ttyS2,115200, console=tty1"

    def ask(self, now: int) -> None:
        super().ask(now)
        self.listens, self.deadline = True, None

    def tick(self, now: int) -> None:
        self.ask(now)

    def receive(self, data: bytes, source: tuple[str, int], now: int) -> None:
        self.listens = False
        opcode, _, kind, values, _ = read(data)
        if opcode != REPLY:
            self.did = "error: not a reply"
        elif kind == MFS:
            mfs = text(values)
            self.did = (
                f"linux.c32 {mfs}/bzImage initrd={mfs}/rootfs.cpio.gz {self.CONSOLES} biosdevname=0 net.ifnames=0 "
            )
        elif kind == PART:
            self.did = f"chain.c32 hd0 {number(values)}"
        elif kind == WAIT:
            self.deadline = now + 5 * S
        else:
            self.did = "unexpected bootwhat type"
