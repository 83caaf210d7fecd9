"""Facts in the systemd journal, with their fields, when a service's output goes there.

    journalctl -u bootwire BOOTWIRE_MACHINE=52:54:00:12:34:56
    journalctl -u bootwire BOOTWIRE_STATE=stuck -o json

The native protocol (systemd documentation, "Native Journal Protocol"): one datagram an entry to a socket of journald's,
a field a line, `NAME=value`, or the name alone and a length where the value holds line ends. Never waits: what finds no
room in the socket is counted.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import fields

from bootwire import facts
from bootwire.facts import KINDS, Fact, Record
from bootwire.observe import prose

SOCKET = "/run/systemd/journal/socket"

# syslog(3)
_WARNING, _NOTICE, _INFO, _DEBUG = 4, 5, 6, 7
_FIELDS = {kind: tuple(field.name for field in fields(kind) if field.name != "machine") for kind in KINDS}


def is_output(descriptor: int) -> bool:
    """Whether what is written there goes to the journal: systemd says so in the environment (systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


class SystemdJournal:
    """Writes facts there. `take` is for the journal's thread. Raises OSError where there is no such socket.

    verbose  every fact instead of the milestones
    """

    def __init__(self, path: str = SOCKET, *, verbose: bool = False) -> None:
        self.lost = 0
        self._verbose = verbose
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def take(self, record: Record) -> None:
        """A record of the journal."""
        if not (self._verbose or prose.is_milestone(record.fact)):
            return
        try:
            self._socket.send(entry(record.fact))
        except OSError:  # it is full, or was restarted: an entry is missing, the server goes on
            self.lost += 1

    def close(self) -> None:
        self._socket.close()


def entry(fact: Fact) -> bytes:
    """One entry: the line as on a terminal, without its time; its priority; each field of the fact."""
    step, address, text = prose.parts(fact)
    where = " ".join(part for part in (fact.machine, address) if part)
    values = {
        "MESSAGE": f"{where}  {step}  {text}" if where else f"{step}  {text}",
        "PRIORITY": str(priority(fact)),
        "SYSLOG_IDENTIFIER": "bootwire",
        "BOOTWIRE_KIND": fact.kind,
        "BOOTWIRE_MACHINE": fact.machine,
    }
    values |= {f"BOOTWIRE_{name.upper()}": str(getattr(fact, name)) for name in _FIELDS[type(fact)]}
    return b"".join(_field(name, value) for name, value in values.items() if value)


def priority(fact: Fact) -> int:
    """As syslog(3) has them."""
    match fact:
        case facts.Verdict():
            return _WARNING if fact.state in ("stuck", "silent") else _NOTICE if fact.state == "booted" else _INFO
        case facts.Warned() | facts.RivalSeen() | facts.TransferFailed() | facts.DhcpHeard():
            return _WARNING
        case facts.ConsoleSaid() | facts.TransferStarted() | facts.SizeProbed() | facts.PxeRequested():
            return _DEBUG
        case _:
            return _INFO


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(data)), data)
    return b"%b=%b\n" % (name.encode(), data)
