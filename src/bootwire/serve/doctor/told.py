"""The doctor's report for a person in 80 columns, and as one JSON object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from bootwire.observe.explain import signatures
from bootwire.serve.doctor import network
from bootwire.serve.doctor.causes import seen_with
from bootwire.serve.doctor.judge import Found, duration
from bootwire.serve.doctor.seen import NOWHERE, Clock, Report, Six, Web
from bootwire.serve.explaining import findings_page, wrapped


def responders(report: Report) -> dict[str, list[str]]:
    """Who offered what, in the order they were heard."""
    found: dict[str, list[str]] = {}
    for trial in report.trials:
        for machine in trial.capture.machines.values():
            boots = signatures.booting(machine)
            for one in trial.offers if machine is trial.machine else ():
                what = [] if one.message.yiaddr == NOWHERE else ["addresses"]
                what += [f"boots {trial.firmware}"] if one in boots else []
                found.setdefault(one.server, []).extend(what)
    return {server: list(dict.fromkeys(what)) for server, what in found.items()}


def page(report: Report, found: list[Found], verbose: bool) -> Iterator[str]:
    """Lines."""
    yield ""
    yield "WHO ANSWERS"
    answering = responders(report)
    for server, what in answering.items():
        yield f"  {server:<15} {', '.join(what)}"
    if not answering:
        yield "  nobody"
    if (host := report.host) is not None:
        yield f"  a plain host gets {host.address}/{host.prefix}"
    yield ""
    yield "WHO WINS"
    for one in map(network.win, report.trials):
        over = f", over {', '.join(one.over)}" if one.over else ""
        yield from wrapped(f"{one.server or 'nobody'}{over}: {one.why}", " " * 12, f"  {one.firmware:<10}")
    yield from _echoes(report)
    yield from _tftp(report)
    yield from _web(report)
    yield from _others(report)
    yield ""
    yield from findings_page([seen_with(one, ", ".join(names)) for one, names in found], verbose)


def _echoes(report: Report) -> Iterator[str]:
    if not report.echoes:
        return
    largest = {one.address: one.passes for one in report.mtus}
    yield ""
    yield "ROUND TRIPS       least   median     most   lost    MTU"
    for one in report.echoes:
        if one.times:
            least, most = one.times[0] * 1000, one.times[-1] * 1000
            fits = largest.get(one.address, "")
            went = f"{least:7.1f}  {one.median * 1000:7.1f}  {most:7.1f}  {one.loss:5.0%}  {fits:>5}"
        else:
            went = f"  {'answers no echo' if one.why == 'silent' else one.why}"
        yield f"  {one.address:<15}{went}  {', '.join(one.roles)}"


def _tftp(report: Report) -> Iterator[str]:
    if not report.tftp:
        return
    yield ""
    yield "TFTP, AGAIN       block  window      octets  seconds"
    for one in report.tftp:
        went = f"{one.octets:>11,} {one.seconds:>8.2f}" if not one.why else f"  {one.trouble}"
        repeats = f"  {one.repeats} sent again" if one.repeats and not one.why else ""
        yield f"  {one.server:<15} {one.block:>5} {one.window:>7} {went}{repeats}"


def _web(report: Report) -> Iterator[str]:
    if not report.web:
        return
    yield ""
    yield "HTTP, AGAIN"
    for one in report.web:
        yield f"  {one.role or 'file':<8}{one.url}"
        yield f"          {went(one)}"


def _others(report: Report) -> Iterator[str]:
    if report.names:
        yield ""
        yield "NAME SERVERS"
        for one in report.names:
            yield f"  {one.server:<15} {one.name}: {', '.join(one.addresses) or one.why}, {one.seconds * 1000:.0f} ms"
    if report.clocks:
        yield ""
        yield "CLOCKS"
        for clock in report.clocks:
            yield f"  {clock.server:<15} {clock_line(clock)}"
    if report.six is not None:
        yield ""
        yield "IPV6"
        for what, text in six_lines(report.six):
            yield from wrapped(text, " " * 18, f"  {what:<16}")


def clock_line(one: Clock) -> str:
    """How a clock stands to ours."""
    if one.offset is None:
        return f"{one.kind}: no answer"
    if abs(one.offset) < 2:
        return f"{one.kind}: as here"
    return f"{one.kind}: {duration(one.offset)} {'ahead of' if one.offset > 0 else 'behind'} the clock here"


def six_lines(six: Six) -> Iterator[tuple[str, str]]:
    """(what, what is known of it)."""
    yield "routers", ", ".join(six.routers) or "none advertises itself"
    yield "addresses", ", ".join(six.addresses) or "none"
    yield "DHCPv6", (six.dhcp_address or "answers without an address") if six.answered else "no answer"
    if six.name_servers:
        yield "name servers", ", ".join(six.name_servers)
    if six.answered:
        yield "boot file", f"{six.boot_url or 'none'}{f' ({six.boot_trouble})' if six.boot_trouble else ''}"


def went(one: Web) -> str:
    """How a URL fared, in a phrase."""
    if one.why:
        return one.trouble or one.why
    rate = f", {one.octets / max(one.seconds, 1e-6) / 1e6:,.1f} MB/s" if one.octets >= 1 << 20 else ""
    parts = {True: ", parts can be had", False: ", no parts", None: ""}[one.ranges]
    size = f"{one.octets:,} octets" + ("" if one.whole else f" of {one.length:,} looked at")
    return f"{one.status}, {size} in {one.seconds:.2f} s{rate}{parts}"


def document(report: Report, found: list[Found]) -> dict[str, object]:
    """For `json.dumps`: everything."""
    return {
        "seconds": round(report.seconds, 3),
        "trials": [
            {
                "firmware": one.firmware, "mac": one.mac, "ends": one.ends, "well": one.well,
                "seconds": round(one.seconds, 3), "screen": list(one.screen),
                "programs": [asdict(program) for program in one.programs],
            }
            for one in report.trials
        ],
        "responders": responders(report),
        "winners": [asdict(network.win(one)) for one in report.trials],
        "offers": [asdict(one) for one in network.offers(report)],
        "echoes": [
            {**asdict(one), "loss": one.loss, "median": one.median} for one in report.echoes
        ],
        "mtu": [asdict(one) for one in report.mtus],
        "conflicts": {address: list(macs) for address, macs in report.conflicts.items()},
        "tftp": [asdict(one) for one in report.tftp],
        "http": [asdict(one) for one in report.web],
        "names": [asdict(one) for one in report.names],
        "clocks": [asdict(one) for one in report.clocks],
        "ipv6": asdict(report.six) if report.six is not None else None,
        "findings": [
            {
                "cause": one.cause, "severity": one.severity, "firmware": list(names), "because": one.because,
                "fix": one.fix, "source": one.source,
            }
            for one, names in found
        ],
    }  # fmt: skip
