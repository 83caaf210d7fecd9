"""The doctor's report as one HTML page: nothing from elsewhere, everything escaped, dark and light, fit for a phone."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence

from bootwire import __version__
from bootwire.serve.doctor import network
from bootwire.serve.doctor.judge import Found
from bootwire.serve.doctor.seen import Report
from bootwire.serve.doctor.told import clock_line, responders, six_lines, went

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --paper: #fff; --line: #d0d7de; --error: #b3261e;
  --warning: #8a5300; --info: #0b5cad; --good: #1a6b34; --card: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9aa5b1; --paper: #0d1117; --line: #30363d;
  --error: #ff8a80; --warning: #ffb74d; --info: #79b8ff; --good: #7ee2a0; --card: #161b22; } }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.dim, td.dim, dd.dim { color: var(--dim); }
article { border: 1px solid var(--line); border-left: .4rem solid var(--info); border-radius: .4rem;
  padding: .6rem 1rem; margin: .8rem 0; background: var(--card); }
article.error { border-left-color: var(--error); } article.warning { border-left-color: var(--warning); }
article h3 { margin: 0; font-size: 1rem; } article p { margin: .3rem 0; }
.error b { color: var(--error); } .warning b { color: var(--warning); } .info b { color: var(--info); }
.good { color: var(--good); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
"""

_SAID = {"error": "Error", "warning": "Warning", "info": "Note"}


def document(report: Report, found: Sequence[Found], moment: str) -> str:
    """The whole page. moment: when it was, for people."""
    return "\n".join(_lines(report, found, moment)) + "\n"


def _lines(report: Report, found: Sequence[Found], moment: str) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<title>Netboot on this network, {_e(moment)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>"
    yield "<h1>Netboot on this network</h1>"
    yield f'<p class="dim">bootwire doctor {_e(__version__)}, {_e(moment)}, {report.seconds:.0f} s</p>'
    yield "<h2>Findings</h2>"
    if not found:
        yield '<p class="good">Nothing is wrong that shows here.</p>'
    for one, names in found:
        yield f'<article class="{_e(one.severity)}">'
        yield f"<h3><b>{_SAID[one.severity]}</b> {_e(one.cause)} <small>({_e(', '.join(names))})</small></h3>"
        yield f"<p>{_e(one.because)}</p>"
        if one.severity != "info":
            yield f"<p>Change: {_e(one.fix)}</p>"
        yield f'<p class="dim"><small>Known from: {_e(one.source)}</small></p>\n</article>'
    yield from _table(
        "How each firmware fared", ("firmware", "it", "seconds"),
        ((one.firmware, one.ends, f"{one.seconds:.1f}") for one in report.trials),
    )  # fmt: skip
    yield from _table(
        "Who answers", ("server", "offers"), ((server, ", ".join(what)) for server, what in responders(report).items())
    )
    yield from _table(
        "Who wins", ("firmware", "takes", "file", "over", "because"),
        ((one.firmware, one.server or "nobody", one.file, ", ".join(one.over), one.why)
         for one in map(network.win, report.trials)),
    )  # fmt: skip
    yield from _table(
        "Offers", ("firmware", "server", "address", "router", "boot server", "file", "relay"),
        ((one.firmware, one.server, one.address, one.router, one.next_server, one.file, one.relay)
         for one in network.offers(report)),
    )  # fmt: skip
    largest = {one.address: str(one.passes) for one in report.mtus}
    yield from _table(
        "Round trips", ("host", "what it is", "least ms", "median ms", "most ms", "lost", "MTU"),
        ((one.address, ", ".join(one.roles),
          *((f"{one.times[0] * 1e3:.1f}", f"{one.median * 1e3:.1f}", f"{one.times[-1] * 1e3:.1f}", f"{one.loss:.0%}")
            if one.times else (one.why, "", "", "")), largest.get(one.address, "")) for one in report.echoes),
    )  # fmt: skip
    yield from _table(
        "TFTP, again", ("server", "file", "block", "window", "octets", "seconds", "trouble"),
        ((one.server, one.name, str(one.block), str(one.window), f"{one.octets:,}", f"{one.seconds:.2f}", one.trouble)
         for one in report.tftp),
    )  # fmt: skip
    yield from _table("HTTP, again", ("what", "URL", "went"), ((one.role, one.url, went(one)) for one in report.web))
    yield from _table(
        "Boot programs", ("firmware", "file", "is", "for", "signed by"),
        ((trial.firmware, one.url, f"{one.kind} {one.version}".strip(), one.architecture,
          ", ".join(one.signers) or "nobody")
         for trial in report.trials for one in trial.programs),
    )  # fmt: skip
    yield from _table(
        "Name servers",
        ("server", "name", "addresses", "ms"),
        (
            (one.server, one.name, ", ".join(one.addresses) or one.why, f"{one.seconds * 1e3:.0f}")
            for one in report.names
        ),
    )
    yield from _table("Clocks", ("clock", "says"), ((one.server, clock_line(one)) for one in report.clocks))
    if report.six is not None:
        yield from _table("IPv6", ("what", "is"), six_lines(report.six))
    yield "</main>\n</body>\n</html>"


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Nothing where there are no rows."""
    lines = ["<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows]
    if not lines:
        return
    yield f'<h2>{_e(title)}</h2>\n<div class="wide" tabindex="0" role="group" aria-label="{_e(title)}">\n<table>'
    yield "<thead><tr>" + "".join(f'<th scope="col">{_e(head)}</th>' for head in heads) + "</tr></thead>\n<tbody>"
    yield from lines
    yield "</tbody>\n</table>\n</div>"


def _cell(text: str) -> str:
    number = text.replace(",", "").replace(".", "").rstrip("%").isdigit() and text.count(".") < 2
    return f'<td class="n">{_e(text)}</td>' if number else f"<td>{_e(text)}</td>"


def _e(text: str) -> str:
    return html.escape(text, quote=True)
