"""What Wireshark finds wrong in a capture of a clean link, and which of it the machine's own slowness explains."""

from __future__ import annotations

import subprocess
from pathlib import Path

LATE = 2.0  # milliseconds; Linux's shortest patience for an acknowledgement (TCP_TIMEOUT_MIN, 2 ticks of 1 ms)
TWICE = " || ".join(
    f"tcp.analysis.{kind}" for kind in ("retransmission", "fast_retransmission", "spurious_retransmission")
)
_FIELDS = (
    "frame.number",
    "frame.time_epoch",
    "tcp.stream",
    "tcp.srcport",
    "tcp.seq",
    "tcp.nxtseq",
    "tcp.options.timestamp.tsval",
)


def tshark(capture: Path, wanted: str, *more: str) -> list[str]:
    """A line for each frame that matches."""
    command = ["tshark", "-n", "-r", str(capture), "-Y", wanted, *more]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def complaints(capture: Path, ours: int, *, checksums: bool) -> list[str]:
    """What is malformed, missing, out of order, has a wrong checksum, or came twice without an explanation."""
    wrong = ["_ws.malformed", "tcp.analysis.lost_segment", "tcp.analysis.out_of_order"]
    if checksums:
        wrong += [f"{layer}.checksum.status == 0" for layer in ("ip", "tcp", "udp", "icmp", "icmpv6")]
    checks = [word for layer in ("ip", "tcp", "udp") for word in ("-o", f"{layer}.check_checksum:TRUE")]
    return tshark(capture, " || ".join(wrong), *checks) + unexplained(capture, ours)


def unexplained(capture: Path, port: int) -> list[str]:
    """Every frame that came twice, but those of a peer that had waited for us in vain.

    A peer with nothing left to send asks after some milliseconds whether its last segment has arrived (RFC 8985 section
    7). On a link that loses nothing this happens where the machine lets our process wait. The peer's own clock, in its
    timestamps, shows it: between its sending of the segment (or of the repetition) and our reading it there was more
    than LATE beyond what the quickest frame took. A segment that lay nowhere and yet was not acknowledged in time is
    our fault, as is everything that we ourselves send twice, and what comes again that never came before.

    port: the peer's
    """
    shown = tshark(capture, "tcp.len > 0", "-T", "fields", *[word for field in _FIELDS for word in ("-e", field)])
    twice = {line.split("\t")[0] for line in tshark(capture, TWICE, "-T", "fields", "-e", "frame.number")}
    lag: dict[str, list[tuple[int, int, float]]] = {}  # of each stream's segments: first octet, the one after, ms
    least: dict[str, float] = {}
    wrong = []
    for line in shown:
        number, moment, stream, source, *rest = line.split("\t")
        if int(source) != port:
            if number in twice:
                wrong.append(f"we repeat ourselves: {line}")
            continue
        start, end, clock = (int(text) for text in rest)
        late = float(moment) * 1000 - clock
        least[stream] = min(least.get(stream, late), late)
        lag.setdefault(stream, []).append((start, end, late))
        if number in twice:
            before = [ms for begin, stop, ms in lag[stream][:-1] if begin < end and stop > start]
            if not before or max(*before, late) < least[stream] + LATE:
                wrong.append(f"no reason: {line}")
    return wrong
