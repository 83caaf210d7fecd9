"""`bootwire doctor`: a machine of each firmware in turn on this network; who answers, how it ends, and what is wrong.

Every machine boots as that firmware would, up to the kernel, over a card of our own (`trials`); what passed is then
read as `explain` reads a capture. After them a plain host looks at the same network (`files`). All of that is
values (`seen`), which become findings (`judge`) and a report (`told`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from bootwire.observe import names
from bootwire.preboot.online import Card, Online
from bootwire.preboot.power_on import FIRMWARE
from bootwire.serve.doctor import files, network, paths, services, told
from bootwire.serve.doctor import page as html
from bootwire.serve.doctor.judge import findings
from bootwire.serve.doctor.seen import Report
from bootwire.serve.doctor.trials import trial
from bootwire.serve.explaining import STATUS
from bootwire.serve.mode import StartError

USUAL = ("bios", "uefi", "uefi-http", "ipxe")
"""What is tried unless somebody chooses: one of each way into a boot."""


def run(
    echo: Callable[[str], object], card: Card, firmwares: Sequence[str], as_json: bool, verbose: bool, page: str = ""
) -> int:
    """Examine the network of this card. page: a file for the report as HTML. Returns the exit status; raises
    StartError, OSError (the card, the file)."""
    chosen = tuple(dict.fromkeys(firmwares)) or USUAL
    if wrong := [name for name in chosen if name not in FIRMWARE]:
        raise StartError(f"no firmware called {wrong[0]}: there are {', '.join(FIRMWARE)}", 2)

    def say(line: str) -> None:
        if not as_json:
            echo(line)

    began = time.monotonic()
    report = Report()
    # all at once, so that what nobody answers costs its time once; not where they are one machine, or share a file
    workers = 1 if card.mac or card.pcap else len(chosen) + 1
    with ThreadPoolExecutor(workers) as pool:
        sixth = pool.submit(services.six, card)
        for firmware, done in [(firmware, pool.submit(trial, card, firmware)) for firmware in chosen]:
            say(f"{firmware}: power on")
            report.trials.append(done.result())
            say(f"{firmware}: {report.trials[-1].ends}")
        report.six = sixth.result()
    say("plain host: looks at the same")
    _as_host(card, report)
    report.seconds = time.monotonic() - began
    found = findings(report)
    if page:
        moment = time.strftime("%Y-%m-%d %H:%M:%S %z")
        Path(page).write_text(html.document(report, found, moment), "utf-8")
    if as_json:
        echo(json.dumps(told.document(report, found)))
    else:
        for line in told.page(report, found, verbose):
            echo(line)
    return max((STATUS[one.severity] for one, _ in found), default=0)


def _as_host(card: Card, report: Report) -> None:
    """What a machine without any network boot gets, and sees."""
    named: dict[str, bytes] = {}
    for one in report.trials:
        for transfer in one.machine.transfers if one.machine is not None else ():
            if not names.optional(transfer.name):
                named.setdefault(transfer.server, transfer.raw)
    given = [one.machine.addresses for one in report.trials if one.machine is not None]
    report.claimed = tuple(dict.fromkeys(address for addresses in given for address in addresses))
    with Online(replace(card, pcap="", bare=True), threaded=True) as bare:
        report.conflicts = paths.conflicts(bare.stack, report.claimed)
    try:
        with Online(replace(card, pcap=""), threaded=True) as online:
            report.host = online.network
            report.echoes = paths.echoes(online.stack, network.targets(report))
            report.tftp = files.tftp_again(online, list(named.items()))
            report.web = files.http_again(online, [url for one in report.trials for url in one.urls])
            urls = [url for one in report.trials for _, url, _ in one.urls]
            urls += [one.file for one in network.offers(report) if "://" in one.file]
            report.names = services.names(online, urls)
            report.clocks = services.clocks(online, report.web)
            answering = {one.address for one in report.echoes if one.times}
            report.mtus = [paths.mtu(online.stack, one) for one in network.boot_servers(report) if one in answering]
    except OSError as error:
        report.host_trouble = error.strerror or str(error)
