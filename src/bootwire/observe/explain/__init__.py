"""Captures explained: packets in, stories and findings out. Pure, streamed, bounded.

`gather` follows the conversations, `story` tells them, `signatures` finds what is wrong, in the words of `causes`.
"""

from __future__ import annotations

from collections.abc import Iterable

from bootwire.observe.explain.gather import Capture, Gatherer
from bootwire.wire.pcap import Packet
from bootwire.wire.reader import WireError


def gathered(packets: Iterable[Packet]) -> Capture:
    """Everything that the packets show. Damage in the file ends it early and is noted (`Capture.damage`)."""
    gatherer = Gatherer()
    try:
        for packet in packets:
            gatherer.take(packet)
    except WireError as error:
        if not gatherer.capture.packets:
            raise
        gatherer.capture.damage = str(error)
    return gatherer.end()
