"""Ping, for people: one line an answer, and what became of all of them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from bootwire.preboot.online import Online

_GAP = 1.0  # seconds between questions
_PATIENCE = 2.0  # seconds for an answer


def run(online: Online, host: str, count: int, size: int, say: Callable[[str], object]) -> int:
    """Exit status: 0 if at least one answer came."""
    address = online.transport().resolve(host)[0]
    identifier = secrets.randbits(16)
    times: list[float] = []
    for sequence in range(1, count + 1):
        began = time.monotonic()
        try:
            seconds = online.stack.ping(address, timeout=_PATIENCE, size=size, identifier=identifier, sequence=sequence)
        except TimeoutError:
            say(f"{address}: no answer to {sequence}")
        except OSError as error:
            say(f"{address}: {error}")
        else:
            times.append(seconds)
            say(f"{address}: {size} octets back, {sequence} of {count}, {seconds * 1000:.3f} ms")
        if sequence < count:
            online.stack.wait(lambda: False, max(0.0, began + _GAP - time.monotonic()))
    if not times:
        say(f"{address}: none of {count} answered")
        return 1
    mean = sum(times) / len(times)
    say(
        f"{address}: {len(times)} of {count} answered, "
        f"{min(times) * 1000:.3f} ms at least, {mean * 1000:.3f} on average, {max(times) * 1000:.3f} at most"
    )
    return 0
