"""Which MAC an address of our own networks has, as far as this machine's kernel knows (proc(5), /proc/net/arp)."""

from __future__ import annotations

import time
from pathlib import Path

from bootwire.engine import Ns, S

FRESH: Ns = 1 * S  # how long one reading is used: strangers' questions must not have it read each time
_COMPLETE = 0x2  # ATF_COM, linux/if_arp.h


class Neighbours:
    """Reads the table when it is asked and the last reading is old.

    missed  how long a reading is used that lacks the address; 0 where who asks has a connection: a neighbour that has
            one is in the table
    """

    def __init__(self, table: Path = Path("/proc/net/arp"), missed: Ns = FRESH) -> None:
        self._table = table
        self._missed = missed
        self._read_at: Ns | None = None
        self._macs: dict[str, str] = {}

    def mac_at(self, address: str, now: Ns | None = None) -> str:
        """Lower case with colons, "" if the kernel does not know. now: for tests."""
        now = time.monotonic_ns() if now is None else now
        if self._read_at is None or now - self._read_at >= (FRESH if address in self._macs else self._missed):
            self._read_at = now
            self._macs = self._read()
        return self._macs.get(address, "")

    def _read(self) -> dict[str, str]:
        """Lines are: address, hardware type, flags, MAC, mask, device."""
        try:
            rows = [line.split() for line in self._table.read_text("ascii").splitlines()[1:]]
        except (OSError, UnicodeDecodeError):
            return {}
        return {row[0]: row[3].lower() for row in rows if len(row) == 6 and int(row[2], 16) & _COMPLETE}
