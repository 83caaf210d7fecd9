"""Facts folded into boots: which stages each machine reached, when, what they took, and how it ended.

Pure: records in, summaries and verdicts out. A boot joins everything from a machine's first DISCOVER to the operating
system's sign of life: by MAC where a fact has it, else by the address that the machine was last seen with. It keeps
the records that it was made of, and folding those gives the same boot: so boots are stored, sent and compared.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from bootwire import facts
from bootwire.facts import Fact, Record, Verdict
from bootwire.observe import rules
from bootwire.observe.names import optional
from bootwire.observe.names import stage_of as stage_of

STAGES = ("discover", "address", "pxe", "program", "loader", "script", "kernel", "initrd", "hand-over", "alive")
"""In the order in which a boot passes them; initrds are one stage, however many there are. pxe: port 4011."""

KEPT = 1_024
"""Boots remembered, the oldest forgotten first: 200 machines, 5 times each. With RECORDS: at most some 60 MB."""

RECORDS = 256
"""Records kept of one boot: a Linux boot has 20 to 60; one that fetches thousands of files keeps its beginning."""

TRANSFERS = 256
RIVALS = 4
CONSOLE = 40
"""The last lines of a machine's console that a verdict may quote from."""

LEFT_ALONE = ("--mode off", "own DHCP server")
"""Words of silences that are no refusal: the DHCP server says what the machine is to boot, and it may be of ours."""

EARLY = 64
EARLY_NS = 2_000_000_000
"""Records, nanoseconds: of files that went to an address of which it is not known yet whose it is."""

CAME_BACK: float = 180.0
"""Seconds: a machine that is back at its firmware so soon after its kernel started has not booted (a kernel that cannot
mount its root waits 0 s to reboot, a watchdog 60 to 120 s; an installer takes longer)."""


@dataclass(slots=True)
class Stage:
    """began, ended: seconds since the boot's first fact; octets: sent for it; transfers: 0 for a moment."""

    name: str
    began: float
    ended: float
    octets: int = 0
    transfers: int = 0

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(slots=True)
class Transfer:
    """One file on its way to the machine.

    began, ended  seconds since the boot's first fact; ended is None while it is under way
    octets        sent until now; size: -1 where nobody knows
    because       why it failed, "" otherwise
    """

    name: str
    protocol: str
    peer: str
    began: float
    size: int
    options: str = ""
    octets: int = 0
    ended: float | None = None
    resent: int = 0
    because: str = ""


@dataclass(slots=True)
class Boot:
    """One attempt of one machine, from its first fact on.

    number     1, 2, 3 … in the order in which boots began
    machine    MAC
    started    monotonic nanoseconds of its first fact; wall: the same in seconds since the Unix epoch
    client     a short reading of its firmware, "" if it was never seen asking; arch: its option 93, -1 if none
    address    dotted, "" if not known; given_by: the DHCP server that gave it
    proxied    whether it said that it has a ProxyDHCP offer ("yes", "no"); "" if it did not say
    dhcp_heard what its DHCP server told it that it does not get on with, "" for nothing; dhcp_by: that server
    left_alone its DHCP is not answered here (--mode off, U-Boot); files may be asked for all the same
    rivals     other netboot servers that answered it, in that order
    probed     the file that it asked the size of, and fetched nothing since: (name, octets, protocol)
    stages     by name, those that were reached, as they were first reached
    discovers  DISCOVERs of all its programs: firmware, loader; offers: how many were answered
    resent     octets sent more than once
    failures   transfers that did not end well, size probes left out
    missing    names it asked for that are not served, those that loaders only try left out; missing_why: of the last
    refused    why an image that it may have asked for could not be had, "" where that did not happen
    progressed seconds, of the last thing that moved it on; last: of the last thing that was heard of it
    verdict    None while it runs and nothing is wrong
    left_out   records beyond RECORDS
    """

    machine: str
    started: int
    number: int = 0
    wall: float = 0.0
    client: str = ""
    arch: int = -1
    uuid: str = ""
    vendor_class: str = ""
    interface: str = ""
    relay: str = ""
    address: str = ""
    given_by: str = ""
    proxied: str = ""
    dhcp_heard: str = ""
    dhcp_by: str = ""
    left_alone: bool = False
    probed: tuple[str, int, str] | None = None
    recipe: str = ""
    boot_file: str = ""
    server: str = ""
    what: str = ""
    loader: str = ""
    declined: str = ""
    rivals: tuple[str, ...] = ()
    stages: dict[str, Stage] = field(default_factory=dict)
    transfers: list[Transfer] = field(default_factory=list)
    discovers: int = 0
    offers: int = 0
    pxe_requests: int = 0
    pxe_answers: int = 0
    resent: int = 0
    failures: int = 0
    octets: int = 0
    missing: list[str] = field(default_factory=list)
    missing_why: str = ""
    refused: str = ""
    console: list[str] = field(default_factory=list)
    progressed: float = 0.0
    last: float = 0.0
    verdict: Verdict | None = None
    over: bool = False  # the machine has begun its next boot
    records: list[Record] = field(default_factory=list)
    left_out: int = 0
    revision: int = 0  # grows with every change, for whoever shows it

    @property
    def rival(self) -> str:
        """Whom it followed: the one whose address it took; else any of those that answered it, "" for none."""
        return self.given_by if self.given_by in self.rivals else " or ".join(self.rivals)

    @property
    def handed_over(self) -> bool:
        return "hand-over" in self.stages

    @property
    def loader_transfers(self) -> int:
        """How often the loader was sent whole; more than once means a loop, or a firmware that asks twice."""
        return self.stages["loader"].transfers if "loader" in self.stages else 0

    @property
    def seconds(self) -> float:
        """Until the last thing that was seen of it."""
        return max((stage.ended for stage in self.stages.values()), default=0.0)

    @property
    def stage(self) -> str:
        """The furthest stage it reached, "" for none."""
        return next((name for name in reversed(STAGES) if name in self.stages), "")

    @property
    def state(self) -> str:
        """running, or the verdict's: booted, stuck, silent, declined."""
        return self.verdict.state if self.verdict else "running"

    @property
    def bios(self) -> bool:
        return self.client.startswith("BIOS") or self.arch == 0

    def running(self) -> Transfer | None:
        """The transfer that is under way, the last one if there are several."""
        return next((transfer for transfer in reversed(self.transfers) if transfer.ended is None), None)

    def failed(self, protocol: str) -> Transfer | None:
        """The last transfer over `protocol`, if it failed and nothing came whole over it since."""
        last = next((t for t in reversed(self.transfers) if t.protocol == protocol and t.ended is not None), None)
        return last if last and last.because else None


class Boots:
    """The boots of all machines. Takes records in the order in which they happened, from one thread.

    kept    boots remembered; first: the number of the first one
    stored  the records were written down by somebody who judged, and his verdicts count
    `take` and `tick` return the verdicts that were reached. Whoever keeps the journal records those, and they come back
    with `take`; one that is out of date by then, because the boot moved on, is left alone.
    """

    def __init__(self, kept: int = KEPT, first: int = 1, *, stored: bool = False) -> None:
        self._stored = stored
        self._boots: deque[Boot] = deque(maxlen=kept)
        self._current: dict[str, Boot] = {}
        self._at: OrderedDict[str, str] = OrderedDict()  # address -> machine
        self._open: dict[int, Boot] = {}  # by number: those that a rule may still say something about
        self._next = first
        self._early: deque[Record] = deque(maxlen=EARLY)  # of files, for an address that is nobody's yet
        self._refusal = (-(10**18), "")  # of an image, for whoever had asked for it
        self._leases_seen = -(10**18)  # monotonic ns: when any machine was last given an address
        self.changed: dict[int, Boot] = {}
        """By number: boots that changed since whoever shows them last cleared it."""

    def take(self, record: Record) -> list[Verdict]:
        fact = record.fact
        if isinstance(fact, facts.ImageRefused):
            self._refusal = (record.at, f"{fact.name}: {fact.because}")
        machine = fact.machine or self._machine_of(fact)
        if not machine:
            if isinstance(fact, _OF_FILES):
                self._early.append(record)
            return []
        boot = self._current.get(machine)
        if isinstance(fact, Verdict):
            self._judged(fact, record)
            return []
        told: list[Verdict] = []
        if boot is None or _begins_anew(record, boot):
            if boot is not None:
                told = self._close(boot, record)
            if boot is None and not _begins_one(fact):
                return []
            boot = self._begin(machine, record)
        if isinstance(fact, facts.AddressSeen):
            self._leases_seen = record.at
        self._remember(machine, fact)
        if len(boot.records) < RECORDS:
            boot.records.append(record)
        else:
            boot.left_out += 1
        before = boot.progressed
        _fold(record, boot)
        boot.revision += 1
        self.changed[boot.number] = boot
        if boot.verdict and boot.progressed > before and boot.state in ("stuck", "silent", "declined"):
            boot.verdict = None  # it went on after all
        if boot.handed_over and not boot.verdict:
            told.append(self._say(boot, rules.booted(boot)))
        elif boot.handed_over and boot.state == "booted" and _kernel_again(fact, boot, record):
            told.append(self._say(boot, rules.kernel_refused(boot)))
        elif not boot.verdict:
            self._open[boot.number] = boot
        if isinstance(fact, facts.AddressSeen) and self._early:
            told += self._catch_up(fact.address, record.at)
        return told

    def knows(self, fact: Fact) -> bool:
        """Whether a fact is about a machine, or an image that one may wait for: all that `take` looks at."""
        return isinstance(fact, (*_OF_FILES, facts.ImageRefused)) or bool(fact.machine or self._machine_of(fact))

    def tick(self, now: int) -> list[Verdict]:
        """What can be said by now (monotonic nanoseconds) of boots of which nothing more was heard."""
        told: list[Verdict] = []
        for boot in list(self._open.values()):
            if boot.verdict or boot.over:
                del self._open[boot.number]
                continue
            quiet = (now - boot.started) / 1e9 - boot.progressed
            if boot.running() is not None and quiet < rules.TRANSFER_PATIENCE:
                continue
            found = self._judge(boot, quiet, now)
            if found:
                told.append(self._say(boot, found))
        return told

    def all(self) -> tuple[Boot, ...]:
        """Those remembered, in the order in which they began."""
        return tuple(self._boots)

    def latest(self, machine: str) -> Boot | None:
        """The last boot of a machine."""
        return self._current.get(machine)

    def machines(self) -> list[Boot]:
        """The last boot of each machine."""
        return list(self._current.values())

    def numbered(self, number: int) -> Boot | None:
        if not self._boots or not 0 <= number - self._boots[0].number < len(self._boots):
            return None
        return self._boots[number - self._boots[0].number]

    def progress(self, machine: str, protocol: str, name: str, octets: int) -> None:
        """A transfer has come so far. Not a fact: it is only for whoever watches."""
        boot = self._current.get(machine)
        if boot is None:
            return
        for transfer in reversed(boot.transfers):
            if transfer.ended is None and (transfer.protocol, transfer.name) == (protocol, name):
                if octets > transfer.octets:
                    transfer.octets = octets
                    boot.revision += 1
                    self.changed[boot.number] = boot
                return

    # --- parts --------------------------------------------------------------------------------------------------

    def _catch_up(self, address: str, now: int) -> list[Verdict]:
        """Files go through another loop than DHCP, which may tell of an address a moment later than of its files."""
        early, self._early = self._early, deque(maxlen=EARLY)
        mine = [one for one in early if getattr(one.fact, "peer", "") == address and now - one.at < EARLY_NS]
        return [verdict for one in mine for verdict in self.take(one)]

    def _begin(self, machine: str, record: Record) -> Boot:
        if len(self._boots) == self._boots.maxlen:
            oldest = self._boots[0]
            self._open.pop(oldest.number, None)
            self.changed.pop(oldest.number, None)
            if self._current.get(oldest.machine) is oldest:
                del self._current[oldest.machine]
        started = _start(record)
        boot = Boot(machine, started, self._next, record.wall - (record.at - started) / 1e9)
        self._next += 1
        before = self._current.get(machine)
        if before and before.declined and (started - before.started) / 1e9 - before.last < 60:
            boot.declined = before.declined  # a silence is told once a minute
        self._current[machine] = boot
        self._boots.append(boot)
        self._open[boot.number] = boot
        return boot

    def _close(self, boot: Boot, record: Record) -> list[Verdict]:
        """The machine begins anew: say what became of the boot before, where that was not said yet."""
        boot.over = True
        self._open.pop(boot.number, None)
        after = (record.at - boot.started) / 1e9
        if boot.handed_over:
            since = after - boot.stages["hand-over"].ended
            if "alive" not in boot.stages and since < CAME_BACK:
                return [self._say(boot, rules.came_back(boot, since))]
            return []
        if boot.verdict or boot.stage == "program":  # what its program told and did is in the timeline
            return []
        quiet = max(after - boot.progressed, 0.0)
        found = self._judge(boot, quiet, record.at) or rules.started_over(boot, quiet)
        return [self._say(boot, found)]

    def _say(self, boot: Boot, found: rules.Finding) -> Verdict:
        verdict = Verdict(
            boot.machine, boot.number, found.state, boot.stage, found.cause, found.because, found.fix, found.screen,
            round(boot.seconds, 3), boot.octets,
        )  # fmt: skip
        boot.verdict = verdict
        boot.revision += 1
        self.changed[boot.number] = boot
        self._open.pop(boot.number, None)
        return verdict

    def _judged(self, verdict: Verdict, record: Record) -> None:
        """A verdict from the journal: ours, coming back, or one that was stored."""
        boot = self.numbered(verdict.boot)
        if boot is None or boot.machine != verdict.machine:  # a file that begins in the middle has its own numbers
            boot = None if verdict.cause in rules.OF_THE_NEXT else self._current.get(verdict.machine)
        if boot is None or not (self._stored or boot.verdict == verdict):
            return
        boot.verdict = verdict
        self._open.pop(boot.number, None)
        if len(boot.records) < RECORDS:
            boot.records.append(record)
        boot.revision += 1
        self.changed[boot.number] = boot

    def _judge(self, boot: Boot, quiet: float, now: int) -> rules.Finding | None:
        at, why = self._refusal
        boot.refused = why if at > boot.started - rules.REFUSAL_REMEMBERED * 10**9 else ""
        return rules.judge(boot, quiet, self._leases(now))

    def _leases(self, now: int) -> bool:
        """Whether a DHCP server was heard giving any machine an address of late."""
        return now - self._leases_seen < rules.LEASES_REMEMBERED * 10**9

    def _machine_of(self, fact: Fact) -> str:
        peer = getattr(fact, "peer", "") or getattr(fact, "source", "")
        return self._at.get(peer, "") if peer else ""

    def _remember(self, machine: str, fact: Fact) -> None:
        address = getattr(fact, "address", "") or getattr(fact, "peer", "")
        if address and address != "0.0.0.0" and self._at.get(address) != machine:
            self._at[address] = machine
            self._at.move_to_end(address)
            while len(self._at) > 4 * KEPT:
                self._at.popitem(last=False)


def fold(records: Iterable[Record], first: int = 1) -> Boots:
    """Boots out of records that were stored, numbered from `first`."""
    boots = Boots(first=first, stored=True)
    for record in records:
        boots.take(record)
    return boots


_BEGINS_NONE = (
    facts.Refused, facts.ConsoleSaid, facts.AddressSeen, facts.DhcpHeard, facts.RivalSeen, facts.Warned,
    facts.BootinfoAsked, facts.BootinfoAnswered, facts.OrderSent, facts.OrderEnded, facts.FellSilent,
    facts.ReportReceived, facts.ProgramSaid, facts.StateChanged, facts.DocumentServed, facts.ImageFetched,
    facts.ImageRefused, facts.FleetLoaded,
)  # fmt: skip


_OF_FILES = (
    facts.TransferStarted, facts.TransferDone, facts.TransferFailed, facts.SizeProbed, facts.NotFound,
)  # fmt: skip


def _begins_one(fact: Fact) -> bool:
    """Whether a boot may begin with this fact: hosts that ask for a lease, and servers' own lines, begin none."""
    if isinstance(fact, facts.Silent):
        return bool(fact.client) and not is_host(fact)
    return not isinstance(fact, _BEGINS_NONE)


def is_host(fact: facts.Silent) -> bool:
    """An operating system asks for its lease: for a machine that was handed a kernel, a sign of life."""
    return fact.client.startswith(facts.NO_NETBOOT) or "does not ask for a network boot" in fact.because


def _begins_anew(record: Record, boot: Boot) -> bool:
    """Whether a fact is the first of the next boot: a DISCOVER of what comes earlier than what was reached.

    The firmware asks before its loader is there; iPXE, loaded or in the ROM, asks before the kernel is there. A
    firmware that asks again long after its last sign starts over, too.
    """
    fact = record.fact
    if not isinstance(fact, facts.Discovered):
        return False
    if boot.handed_over or "kernel" in boot.stages:
        return True
    is_ipxe = "ipxe" in (fact.client + fact.user_class).lower()
    if not is_ipxe and ("loader" in boot.stages or "script" in boot.stages):
        return True
    if boot.stage == "program":  # it goes on with a loader of ours, or starts over
        return True
    return (record.at - boot.started) / 1e9 - boot.last > rules.NEW_ATTEMPT


def _kernel_again(fact: Fact, boot: Boot, record: Record) -> bool:
    """The script fetches the kernel anew after it said that it starts it: it could not (scripts.py, `goto again`)."""
    soon = (record.at - boot.started) / 1e9 - boot.stages["hand-over"].ended < CAME_BACK
    if not (soon and isinstance(fact, facts.TransferDone) and stage_of(fact.name) == "kernel"):
        return False
    had = [(one.name, one.peer) for one in boot.transfers if stage_of(one.name) == "kernel"]
    return had.count((fact.name, fact.peer)) > 1 and had[0][1] == fact.peer and "alive" not in boot.stages


def _start(record: Record) -> int:
    fact = record.fact
    seconds = fact.seconds if isinstance(fact, facts.TransferDone | facts.TransferFailed) else 0.0
    return record.at - int(seconds * 1e9)


def _reach(boot: Boot, name: str, began: float, ended: float) -> Stage:
    stage = boot.stages.get(name)
    if stage is None:
        stage = boot.stages[name] = Stage(name, began, ended)
        boot.progressed = max(boot.progressed, ended)
    return stage


def _fold(record: Record, boot: Boot) -> None:
    now = (record.at - boot.started) / 1e9
    boot.last = max(boot.last, now)
    match record.fact:
        case facts.Discovered() as fact:
            boot.discovers += 1
            if not boot.client:
                boot.client, boot.arch, boot.uuid = fact.client, fact.arch, fact.uuid
                boot.vendor_class, boot.interface, boot.relay = fact.vendor_class, fact.interface, fact.relay
            elif "ipxe" in fact.client.lower():
                boot.loader = boot.loader or fact.client
                if not fact.retry:
                    boot.progressed = max(boot.progressed, now)
            _reach(boot, "discover", now, now)
        case facts.Decided() as fact:
            boot.what = fact.what
        case facts.Offered() as fact:
            boot.offers += 1
            boot.declined = ""
            boot.server = fact.server
            if "loader" not in boot.stages and "script" not in boot.stages:  # what the loader is told is its own affair
                boot.recipe, boot.boot_file = fact.recipe, fact.boot_file or boot.boot_file
            if (stage := boot.stages.get("discover")) and not stage.seconds:
                stage.ended = now
        case facts.AddressSeen() as fact:
            boot.address, boot.given_by = fact.address, fact.by or boot.given_by
            boot.proxied = fact.proxied
            if "hand-over" in boot.stages:
                _reach(boot, "alive", now, now)
            else:
                since = boot.stages["discover"].ended if "discover" in boot.stages else now
                _reach(boot, "address", since, now)
        case facts.PxeRequested() as fact:
            boot.pxe_requests += 1
            boot.client, boot.address = boot.client or fact.client, boot.address or fact.address
            _reach(boot, "pxe", now, now)
        case facts.PxeAnswered() as fact:
            boot.pxe_answers += 1
            boot.boot_file, boot.server, boot.declined = fact.boot_file, fact.server, ""
            if (stage := boot.stages.get("pxe")) and not stage.seconds:
                stage.ended = now
        case facts.Silent() as fact:
            if is_host(fact):
                if boot.handed_over:
                    _reach(boot, "alive", now, now)
            else:
                boot.declined = fact.because
                boot.left_alone = any(words in fact.because for words in LEFT_ALONE)
                boot.client = boot.client or fact.client
        case facts.RivalSeen() as fact:
            if fact.server not in boot.rivals and len(boot.rivals) < RIVALS:
                boot.rivals = (*boot.rivals, fact.server)
        case facts.DhcpHeard() as fact:
            if fact.what != "offer" or not boot.dhcp_heard:
                boot.dhcp_heard, boot.dhcp_by = fact.what, fact.server
        case facts.SizeProbed() as fact:
            boot.address = boot.address or fact.peer
            boot.probed = (fact.name, fact.octets, fact.protocol)
            boot.progressed = max(boot.progressed, now)
        case facts.TransferStarted() as fact:
            boot.address = boot.address or fact.peer
            boot.progressed = max(boot.progressed, now)
            boot.probed = None
            if len(boot.transfers) < TRANSFERS:
                boot.transfers.append(Transfer(fact.name, fact.protocol, fact.peer, now, fact.octets, fact.options))
        case facts.TransferDone() as fact:
            boot.address = boot.address or fact.peer
            boot.resent += fact.resent
            boot.octets += fact.octets
            began = max(0.0, now - fact.seconds)
            boot.probed = None
            transfer = _finish(boot, fact, began, now)
            if transfer:
                transfer.resent, transfer.size = fact.resent, max(transfer.size, fact.octets)
            boot.progressed = max(boot.progressed, now)
            if name := stage_of(fact.name):
                stage = _reach(boot, name, began, now)
                stage.began, stage.ended = min(stage.began, began), now
                stage.octets += fact.octets
                stage.transfers += 1
        case facts.TransferFailed() as fact:
            boot.address = boot.address or fact.peer
            boot.failures += 1
            boot.octets += fact.octets
            if fact.octets:
                boot.progressed = max(boot.progressed, now)
            transfer = _finish(boot, fact, max(0.0, now - fact.seconds), now)
            if transfer:
                transfer.because = fact.because
        case facts.NotFound() as fact:
            if not optional(fact.name) and len(boot.missing) < 32:
                boot.missing.append(fact.name)
                boot.missing_why = fact.because
        case facts.ScriptServed() as fact:
            boot.address = boot.address or fact.peer
            boot.loader = fact.loader if fact.loader and fact.loader != "iPXE" else boot.loader
            boot.progressed = max(boot.progressed, now)
            _reach(boot, "script", now, now).ended = now
        case facts.ConsoleSaid() as fact:
            boot.console = [*boot.console[1 - CONSOLE :], fact.text]
        case facts.HandedOver():
            _reach(boot, "hand-over", now, now)
        case facts.DocumentServed() | facts.StateChanged(phase="installed"):  # its installer asks, or reports
            if boot.handed_over and now - boot.stages["hand-over"].ended > 1:
                _reach(boot, "alive", now, now)
        case _:
            pass


def _finish(boot: Boot, fact: facts.TransferDone | facts.TransferFailed, began: float, now: float) -> Transfer | None:
    """End the transfer that this fact is about; one that was never seen to begin is added. None beyond TRANSFERS."""
    key = (fact.protocol, fact.name, fact.peer)
    for transfer in boot.transfers:
        if transfer.ended is None and (transfer.protocol, transfer.name, transfer.peer) == key:
            break
    else:
        if len(boot.transfers) >= TRANSFERS:
            return None
        transfer = Transfer(fact.name, fact.protocol, fact.peer, began, -1)
        boot.transfers.append(transfer)
    transfer.octets, transfer.began, transfer.ended = fact.octets, min(transfer.began, began), now
    return transfer
