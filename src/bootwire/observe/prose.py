"""One fact, one terminal line: TIME MACHINE STEP DETAIL, stable and greppable (docs/reference/facts.md lists them).

The MAC is on every line that is about a machine, and its address beside it where the fact knows it, so that
`grep 52:54:00:12:34:56` is the story of one machine. Total over hostile text: whatever a fact holds, its line is
printable and bounded.
"""

from __future__ import annotations

from bootwire import facts
from bootwire.facts import Fact, Record
from bootwire.wire.text import printable

HEADER = f"{'TIME':<8}  {'MACHINE':<34}  {'STEP':<9}  DETAIL"

LINE_LIMIT = 1024
"""Characters of a line: a fact has at most four texts of a peer, cut to 256 each."""

# ECMA-48 section 8.3.117 (SGR)
_RED, _GREEN, _YELLOW, _DIM, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


def line(record: Record, utc_offset: int = 0, *, colour: bool = False) -> str:
    """The line of one fact, without a line end.

    utc_offset  seconds east of Greenwich, for the clock column
    colour      SGR sequences around STEP; they are the only unprintable characters that a line can hold
    """
    fact = record.fact
    minutes, second = divmod(int(record.wall) + utc_offset, 60)
    step, address, detail = _columns(fact)
    head = printable(f"{minutes // 60 % 24:02}:{minutes % 60:02}:{second:02}  {fact.machine or '-':<17}  {address:<15}")
    step = printable(step)
    if colour and (sgr := _sgr(fact)):
        return f"{head}  {sgr}{step:<9}{_PLAIN}  {printable(detail, LINE_LIMIT)}"
    return f"{head}  {step:<9}  {printable(detail, LINE_LIMIT)}"


def parts(fact: Fact) -> tuple[str, str, str]:
    """STEP, the machine's address or "", DETAIL: the columns of a line, printable and bounded."""
    step, address, detail = _columns(fact)
    return printable(step), printable(address), printable(detail, LINE_LIMIT)


def is_milestone(fact: Fact) -> bool:
    """Whether the terminal shows it without `-v`: what moves a boot on or stands in its way, not every exchange.

    A silence is shown when it is about a machine that wanted a network boot, not for every host that asks for a lease.
    """
    match fact:
        case facts.TransferStarted() | facts.SizeProbed() | facts.ConsoleSaid() | facts.PxeRequested():
            return False
        case facts.BootinfoAsked():
            return False
        case facts.BootinfoAnswered():
            return not fact.again
        case facts.Silent():
            return bool(fact.client) and not fact.client.startswith(facts.NO_NETBOOT)
        case _:
            return True


def octets_text(octets: int) -> str:
    """512 B, 289 KB, 12.1 MB, 1.5 GB: decimal units, as network speeds are."""
    if octets < 1_000:
        return f"{octets} B"
    if octets < 1_000_000:
        return f"{octets // 1_000} KB"
    return f"{octets / 1e6:.1f} MB" if octets < 1_000_000_000 else f"{octets / 1e9:.1f} GB"


def seconds_text(seconds: float) -> str:
    """0.04s, 20.3s"""
    return f"{seconds:.2f}s" if seconds < 1 else f"{seconds:.1f}s"


def _columns(fact: Fact) -> tuple[str, str, str]:
    """STEP, the machine's address or "", DETAIL; not escaped yet."""
    match fact:
        case facts.Listening():
            place = f", {fact.interface}" if fact.interface else ""
            how = "" if fact.how == "bound" else f" ({fact.how})"
            return "listen", "", f"{fact.service} on {fact.address}:{fact.port}{place}{how}"
        case facts.Warned():
            return "warning", "", fact.what + (f"; to fix: {fact.fix}" if fact.fix else "")
        case facts.Stopped():
            return "stop", "", fact.because
        case facts.Discovered():
            arch = f" (arch {fact.arch})" if fact.arch >= 0 else ""
            relay = f" through relay {fact.relay}" if fact.relay else ""
            again = f", asked {fact.retry + 1} times" if fact.retry else ""
            return "discover", "", f"{fact.client}{arch} on {fact.interface}{relay}{again}"
        case facts.Decided():
            profile = f" ({fact.profile})" if fact.profile else ""
            return "decision", "", f"{fact.what}{profile}: {fact.because}"
        case facts.Offered():
            offered = fact.boot_file or "nothing yet"
            return "offer", "", f"{offered} from {fact.server} ({fact.recipe}): {fact.because}"
        case facts.PxeRequested():
            item = f", item {fact.item}" if fact.item >= 0 else ""
            return "request", fact.address, f"{fact.client} asks port 4011 from port {fact.source_port}{item}"
        case facts.PxeAnswered():
            return "answer", fact.address, f"{fact.boot_file} from {fact.server}: {fact.because}"
        case facts.Silent():
            return "silence", "", f"{fact.service}: " + (f"{fact.client}: " if fact.client else "") + fact.because
        case facts.Refused():
            detail = f" [{fact.detail}]" if fact.detail else ""
            return "refusal", fact.source, f"{fact.service}: {fact.because}{detail}"
        case facts.AddressSeen():
            without = ", and it has no ProxyDHCP offer" if fact.proxied == "no" else ""
            return "address", fact.address, f"given by {fact.by}{without}"
        case facts.DhcpHeard():
            return "dhcp", fact.address, f"{fact.server}: {_DHCP_HEARD.get(fact.what, fact.what)}"
        case facts.RivalSeen():
            file = f" ({fact.boot_file})" if fact.boot_file else ""
            return "rival", "", f"{fact.server} answers, too: {fact.what}{file}"
        case facts.TransferStarted():
            options = f", {fact.options}" if fact.options else ""
            size = octets_text(fact.octets) if fact.octets >= 0 else "size unknown"
            return fact.protocol, fact.peer, f"{fact.name}  begins, {size}{options}"
        case facts.TransferDone():
            resent = f", {octets_text(fact.resent)} sent again" if fact.resent else ""
            speed = f", {octets_text(int(fact.octets / fact.seconds))}/s" if fact.seconds > 0 else ""
            took = f"{octets_text(fact.octets)} in {seconds_text(fact.seconds)}{speed}"
            hung_up = "" if fact.confirmed else ", the last ACK never came"
            return fact.protocol, fact.peer, f"{fact.name}  {took}{resent}{hung_up}"
        case facts.TransferFailed():
            where = f"after {octets_text(fact.octets)} and {seconds_text(fact.seconds)}"
            return fact.protocol, fact.peer, f"{fact.name}  failed {where}: {fact.because}"
        case facts.SizeProbed():
            return fact.protocol, fact.peer, f"{fact.name}  only its size was asked for: {octets_text(fact.octets)}"
        case facts.NotFound():
            return fact.protocol, fact.peer, f"{fact.name}  not found: {fact.because}"
        case facts.StateChanged():
            profile = f" ({fact.profile})" if fact.profile else ""
            left = f", {fact.tries} left" if fact.tries else ""
            return "state", "", f"{fact.phase}{profile}{left}: {fact.because}"
        case facts.ServiceAsked():
            return "service", "", f"{fact.service} says {fact.outcome} in {seconds_text(fact.seconds)}: {fact.because}"
        case facts.FleetLoaded():
            return "fleet", "", f"{fact.file} is in force: {fact.what}"
        case facts.DocumentServed():
            secrets = f", with the secrets {fact.secrets}" if fact.secrets else ""
            made = f"{fact.name} of profile {fact.profile}, {octets_text(fact.octets)}{secrets}"
            return "document", fact.peer, made
        case facts.ImageFetched():
            again = f", resumed {fact.resumed} times" if fact.resumed else ""
            took = f"{octets_text(fact.octets)} in {seconds_text(fact.seconds)}"
            return "image", "", f"{fact.name}  is in the cache: {took}{again}, SHA-256 {fact.sha256}"
        case facts.ImageRefused():
            return "image", "", f"{fact.name}  is not served: {fact.because}"
        case facts.ScriptServed():
            loader = f" for {fact.loader}" if fact.loader else ""
            return "script", fact.peer, f"{fact.name}{loader}: {fact.because}"
        case facts.ConsoleSaid():
            return "console", fact.peer, fact.text
        case facts.HandedOver():
            return (
                "hand-over",
                fact.peer,
                f"the kernel starts: {octets_text(fact.octets)} in {seconds_text(fact.seconds)}",
            )
        case facts.BootinfoAsked():
            how = "" if fact.how == "plain" else f", {fact.how}"
            old = f", version {fact.version}" if fact.version != 1 else ""
            return "bootinfo", fact.address, f"asks what to do{' again' if fact.again else ''}{how}{old}"
        case facts.BootinfoAnswered():
            return "bootinfo", fact.address, f"{fact.answer}: {fact.because}"
        case facts.OrderSent():
            times = f", sent {fact.attempt} times" if fact.attempt > 1 else ""
            return "order", fact.address, f"{fact.order}{times}"
        case facts.OrderEnded():
            taken = "taken" if fact.taken else "no sign that it was taken"
            return (
                "order",
                fact.address,
                f"{fact.order}, {taken}: {fact.how}",
            )
        case facts.FellSilent():
            return "silent", fact.address, f"waited for an order, and has not asked for {fact.seconds} s"
        case facts.ReportReceived():
            changes = f"; changed: {fact.changes}" if fact.changes else ""
            return "report", fact.address, f"{fact.program} says: {fact.what} ({fact.because}{changes})"
        case facts.ProgramSaid():
            return "program", fact.address, f"{fact.how}: {fact.text}"
        case facts.Verdict():
            where = f" after {fact.stage}" if fact.state == "stuck" and fact.stage else ""
            fix = f"; to fix: {fact.fix}" if fact.fix else ""
            return "verdict", "", f"{fact.state}{where}: {fact.because}{fix}"
        case _:
            raise AssertionError(f"no sentence for {type(fact).__name__}")


_DHCP_HEARD = {
    "offer": "offers an address, and the machine asks again",
    "no subnet mask": "offers an address without a subnet mask (option 1)",
    "vendor class alone": "says that it is a boot server (option 60), and offers nothing to boot",
    "no next server": "names a boot file, and no server to get it from (siaddr 0.0.0.0)",
    "refusal": "refuses the address that the machine asks for (NAK)",
}


def _sgr(fact: Fact) -> str:
    match fact:
        case facts.Warned() | facts.RivalSeen() | facts.FellSilent():
            return _YELLOW
        case facts.TransferFailed() | facts.Refused() | facts.ImageRefused():
            return _RED
        case facts.Verdict():
            return {"booted": _GREEN, "declined": _DIM}.get(fact.state, _RED)
        case facts.HandedOver():
            return _GREEN
        case facts.ConsoleSaid() | facts.Silent() | facts.NotFound() | facts.SizeProbed() | facts.TransferStarted():
            return _DIM
        case _:
            return ""
