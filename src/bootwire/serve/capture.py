"""`--pcap FILE`: what the server saw and sent, as frames, for Wireshark and for whoever is asked for help.

The kernel filters and queues (packet(7)); a thread of its own writes, so that serving waits neither for the disk nor
for the capture. What the thread cannot keep up with the kernel drops and counts.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence

from bootwire.facts import Warned
from bootwire.serve import bpf
from bootwire.serve.capture_socket import SO_TIMESTAMPNS, auxiliary, frame_sockets, kernel_drops
from bootwire.serve.content import Record
from bootwire.serve.interfaces import Interface
from bootwire.wire import pcap

BUFFER = 32 << 20
"""Octets of the kernel's queue for each interface: a few hundred milliseconds of TFTP to 200 machines."""

_TURN = 256  # frames of one interface before the others have their turn
_FLUSH = 1 << 18  # octets gathered for one write
_PATIENCE_MS = 200  # how long gathered octets may wait for more

_TIMESPEC = struct.Struct("@ll")  # struct timespec
_HAS_ETHERNET_HEADER = (1, 772)  # ARPHRD_ETHER, ARPHRD_LOOPBACK: linux/if_arp.h

Ancillary = list[tuple[int, int, bytes]]  # level, type, data, as recvmsg gives them


class Capture:
    """Captures from construction until `close`. Every write ends with a whole record: an abandoned file is valid.

    Kept: all UDP, and TCP from or to the HTTP port, both directions, on the interfaces given. Links without Ethernet
    header get one of zeros, since a classic pcap file has one kind of link. Raises OSError when the file or a socket
    cannot be opened.
    """

    def __init__(self, path: str, interfaces: Sequence[Interface], http_port: int, record: Record) -> None:
        self._path = path
        self._record = record
        self._gathered = bytearray(pcap.file_header())
        self._frame = memoryview(bytearray(pcap.RECORD_LIMIT))
        self._written = 0
        self._failed = False
        self._sockets: list[socket.socket] = []
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            self._flush()
            self._sockets = frame_sockets(interfaces, bpf.udp_or_tcp_port(http_port), BUFFER)
        except OSError:
            self._release()
            raise
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is there already, and report what was lost."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        lost = sum(map(kernel_drops, self._sockets))
        self._release()
        if lost:
            self._record(Warned("", f"{lost} frames are missing in {self._path}: they came too fast"))

    def _run(self) -> None:
        poll = select.poll()
        by_number = {each.fileno(): each for each in self._sockets}
        for number in (self._wake, *by_number):
            poll.register(number, select.POLLIN)
        ended = False
        while not ended:
            ready = poll.poll(_PATIENCE_MS if self._gathered else None)
            if not ready:
                self._flush()
            for number, _ in ready:
                if number == self._wake:
                    ended = True
                else:
                    self._take(by_number[number])
        for each in self._sockets:  # at most what waits by now: a storm must not keep us from ending
            until = time.monotonic() + 1
            while self._take(each) == _TURN and time.monotonic() < until:
                pass
        self._flush()

    def _take(self, source: socket.socket) -> int:
        """Take what waits, at most a turn of it. Returns how many frames there were."""
        for count in range(_TURN):
            try:
                size, ancillary, _, address = source.recvmsg_into([self._frame], 256)
            except BlockingIOError:
                return count
            except OSError:  # the interface went down; the socket hears it again when it is back
                return count
            self._keep(size, ancillary, address)
        return _TURN

    def _keep(
        self, size: int, ancillary: list[tuple[int, int, bytes]], address: tuple[str, int, int, int, bytes]
    ) -> None:
        frame = framed(self._frame[:size], ancillary, address)
        if frame is None:
            return
        self._gathered += pcap.record(moment(ancillary), frame, len(frame))
        if len(self._gathered) >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        """Write whole records; on a full disk take back what is torn, say so once, and keep no more."""
        octets = bytes(self._gathered)
        self._gathered.clear()
        if self._failed:
            return
        left = memoryview(octets)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            self._failed = True
            with contextlib.suppress(OSError):  # a pipe has no length
                os.ftruncate(self._file, self._written)
            self._record(Warned("", f"the capture in {self._path} ends here: {error.strerror}"))
        else:
            self._written += len(octets)

    def _release(self) -> None:
        for each in self._sockets:
            each.close()
        os.close(self._file)
        os.close(self._wake)


def framed(
    frame: memoryview, ancillary: Ancillary, address: tuple[str, int, int, int, bytes]
) -> bytes | memoryview | None:
    """A frame as it was on an Ethernet, whatever link it came from; None for loopback's own echo of it."""
    _, protocol, kind, link, _ = address
    if kind == socket.PACKET_OUTGOING and link == _HAS_ETHERNET_HEADER[1]:
        return None  # loopback: it comes in again
    whole: bytes | memoryview = frame
    if link not in _HAS_ETHERNET_HEADER:
        whole = bytes(12) + protocol.to_bytes(2, "big") + frame
    if tag := auxiliary(ancillary)[0]:
        whole = b"".join((whole[:12], tag.tpid.to_bytes(2, "big"), tag.tci.to_bytes(2, "big"), whole[12:]))
    return whole


def moment(ancillary: Ancillary) -> int:
    """When the kernel had the frame, nanoseconds since the Unix epoch."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return time.time_ns()
