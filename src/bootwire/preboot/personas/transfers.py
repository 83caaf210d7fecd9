"""What a persona's wishes for files mean to the engines that fetch them, and the engines' verdicts to the persona."""

from __future__ import annotations

from bootwire.engine import tftp
from bootwire.preboot.personas.steps import Fetched, NotFetched, TftpGet
from bootwire.wire import tftp as wire

TFTP_PORT = 69  # RFC 1350 section 4
_REASONS = {"timeout": "timeout", "connect": "unreachable", "too big": "too big"}


def tftp_wanted(wanted: TftpGet) -> tftp.Wanted:
    """For `tftp.Receiver`."""
    numbers = {name: wire.number(value) or 0 for name, value in wanted.options}
    return tftp.Wanted(
        wanted.name,
        block_size=numbers.get(b"blksize", wire.BLOCK_SIZE),
        window=numbers.get(b"windowsize", 1),
        timeout=numbers.get(b"timeout", 0),
        ask_size=b"tsize" in numbers,
        limit=wanted.limit,
        order=tuple(numbers),
        waits=wanted.waits,
    )


def hang_up(receiver: tftp.Receiver, code: int, repeats: int) -> tuple[bytes, Fetched]:
    """After the OACK of a probe: the ERROR to send, and what was learned."""
    size = receiver.size
    error = wire.emit(wire.Error(code, b"User aborted the transfer"))
    return error, Fetched(-1 if size is None else size, repeats=repeats)


def tftp_failed(verdict: tftp.Verdict, repeats: int) -> NotFetched:
    """For a verdict that is not Received."""
    match verdict:
        case tftp.Denied(code, text):
            return NotFetched("error", code, text.decode("latin-1"), repeats)
        case tftp.Silence():
            return NotFetched("timeout", repeats=repeats)
        case tftp.Broken(because):
            why = "too big" if because.startswith("a file") else "options" if "option" in because else "broken"
            return NotFetched(why, text=because, repeats=repeats)
        case _:
            raise AssertionError(verdict)


def http_failed(why: str, detail: str) -> NotFetched:
    """For `http_client.Failed`."""
    return NotFetched(_REASONS.get(why, "broken"), text=detail)
