"""BootServer: engines and policy wired together, still without I/O.

Datagrams go in with their moment; what to send and what happened come out, in order. The rules of where a reply goes,
what counts as a retry and what as a copy, and how long anything is remembered live here; what is offered lives in
policy, how it is written in engine.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from bootwire.assets import scripts
from bootwire.engine import MS, Ns, S
from bootwire.engine import dhcp4 as engine
from bootwire.engine.lru import Lru
from bootwire.facts import (
    AddressSeen,
    Decided,
    DhcpHeard,
    Discovered,
    Fact,
    Offered,
    PxeAnswered,
    PxeRequested,
    Refused,
    RivalSeen,
    Silent,
    Warned,
)
from bootwire.policy.client import Client, Kind, classify
from bootwire.policy.decide import PXELINUX, History, Offerings, Plan, Recipe, decide
from bootwire.policy.inventory import Hardware
from bootwire.policy.offers import lacks_server
from bootwire.policy.target import LOCAL, Decision, Menu, Silence, Stage, Target, Traits
from bootwire.policy.target import traits as read_traits
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP payload that arrived, or that we overheard.

    source     where it came from: dotted IPv4, port
    service    "dhcp": it came to port 67; "pxe": to port 4011. `observe` does not look at it
    interface  name of the interface it arrived on
    ours       our own IPv4 that this client reaches us by: the destination where it was unicast, else the address of
               the interface (for a relayed one: of the interface that faces giaddr)
    """

    data: bytes
    source: tuple[str, int]
    service: Literal["dhcp", "pxe"]
    interface: str
    ours: str


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: send `data` from `ours`:`from_port` to `to`; out of `interface` where `to` is 255.255.255.255."""

    data: bytes
    to: tuple[str, int]
    from_port: int
    ours: str
    interface: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Effect: nobody knows yet what this machine shall boot. Find out, then `resume` the datagram."""

    traits: Traits


Effect = Send | Fact | Ask

Deciding = Callable[[Traits], Decision | None]
"""What a machine shall boot, as far as it is known without waiting; None: it must be asked for. Any thread."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator chose and what there is to hand out.

    mode  "proxy": answer DISCOVERs beside the network's DHCP server. "off": leave port 67 alone and answer port 4011
          only, for networks whose DHCP server names us itself (PXE 2.1 section 2.2.3)
    """

    http_port: int = 80
    mode: Literal["proxy", "off"] = "proxy"
    offerings: Offerings = field(default_factory=Offerings)


class BootServer:
    """The DHCP side of one server: ProxyDHCP on port 67, boot server on port 4011, and an ear for the neighbours.

    All memory is bounded (4,096 machines, the least recently seen forgotten first). One thread calls `receive`,
    `observe` and `tick`; `machine_at` and the `note_` methods may be called from any. `settings` may be replaced.
    """

    def __init__(
        self,
        settings: Settings,
        deciding: Deciding | None = None,
        hardware: Callable[[str], Hardware | None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self._deciding = deciding or _everything
        self._hardware = hardware
        self._machines: Lru[str, _Machine] = Lru(_MACHINES)
        self._macs: Lru[str, str] = Lru(_MACHINES)  # IPv4 -> MAC
        self._worked: Lru[str, Recipe] = Lru(_FAMILIES)  # Client.family -> recipe
        self._own: Lru[str, None] = Lru(_FAMILIES)  # our own addresses, as datagrams showed them
        self._said: Lru[tuple[str, ...], Ns] = Lru(_MACHINES)  # facts not to repeat -> when last said
        self._early: Lru[str, tuple[int, RivalSeen, Ns]] = Lru(_FAMILIES)  # by MAC: xid, and what was said, when
        self._refusals = _Refusals()
        self._rival_vendor_until: Ns = 0
        self._notes: deque[tuple[str, str, Ns]] = deque(maxlen=_MACHINES)  # machine, loader ("": it started), when
        self._learnt: deque[Traits] = deque(maxlen=_MACHINES)

    def receive(self, datagram: Datagram, now: Ns) -> list[Effect]:
        """Answer a datagram that came to port 67 or 4011. Anything may be in it; nothing in it raises."""
        effects = self._catch_up(datagram, now)
        try:
            message = dhcp4.parse(datagram.data)
        except WireError as error:
            return effects + self._refusals.add(datagram, str(error), now)
        if message.op != dhcp4.REQUEST:
            return effects + self._refusals.add(datagram, "a server's reply sent to a server port", now)
        if (answered := self._answered(datagram, message, now, resumed=False)) is not None:
            return effects + answered
        if message.type == dhcp4.REQUEST_LEASE:
            return effects + self._lease_requested(message)
        if message.type in (dhcp4.BOOTP, dhcp4.INFORM):
            return effects + self._not_for_us(message, now)
        return effects  # DECLINE, RELEASE and replies: between the client and its DHCP server

    def resume(self, datagram: Datagram, now: Ns) -> list[Effect]:
        """Go on with a datagram that `receive` had to `Ask` for, now that the decision is known."""
        effects = self._catch_up(datagram, now)
        try:
            message = dhcp4.parse(datagram.data)
        except WireError:
            return effects
        return effects + (self._answered(datagram, message, now, resumed=True) or [])

    def _answered(self, datagram: Datagram, message: Message, now: Ns, resumed: bool) -> list[Effect] | None:
        """What answers a message that wants a boot; None where it is none."""
        if datagram.service == "pxe":
            return self._boot_request(datagram, message, now, resumed)
        if message.type == dhcp4.DISCOVER:
            return self._discover(datagram, message, now, resumed)
        if message.type == dhcp4.REQUEST_LEASE and engine.boot_item(message) is not None:
            return self._boot_request(datagram, message, now, resumed)
        return None

    def observe(self, datagram: Datagram, now: Ns) -> list[Effect]:
        """Learn from a datagram that was not for us: DHCP replies to port 68, REQUESTs. Never sends."""
        effects = self._catch_up(datagram, now)
        try:
            message = dhcp4.parse(datagram.data)
        except WireError:
            return effects
        if message.op == dhcp4.REQUEST:
            return effects + (self._lease_requested(message) if message.type == dhcp4.REQUEST_LEASE else [])
        if message.type == dhcp4.ACK and message.yiaddr != _NONE:
            effects += self._address(message.mac, message.yiaddr, _server(message, datagram))
        if message.type in (dhcp4.OFFER, dhcp4.NAK):
            effects += self._heard(message, _server(message, datagram), now)
        if message.type in (dhcp4.OFFER, dhcp4.ACK):
            effects += self._rival(datagram, message, now)
        return effects

    @property
    def deadline(self) -> Ns | None:
        """When `tick` has something to say, None for never."""
        return self._refusals.deadline

    def tick(self, now: Ns) -> list[Effect]:
        return [*self._refusals.due(now)]

    def machine_at(self, address: str) -> str:
        """MAC of the machine last seen with this IPv4 address, "" if none. Any thread."""
        return self._macs.get(address) or ""

    def traits_of(self, machine: str) -> Traits | None:
        """What is known of a machine, from its last DISCOVER or boot request. Any thread."""
        memory = self._machines.get(machine)
        return replace(memory.traits, hardware=self._hardware(machine)) if memory else None

    def proved(self, traits: Traits, now: Ns) -> Traits:
        """`traits` with its boot, if `traits.address` is where DHCP messages of its present boot show it. Any thread.

        This keeps out who reaches HTTP alone. Whoever can send DHCP messages in a machine's name is not told from it.
        """
        memory = self._machines.get(traits.machine)
        if memory is None or not memory.boot:
            why = "no DHCP message of it was heard here"
        elif now - memory.heard_at >= _BOOTING:
            why = f"no DHCP message of it was heard here in the last {_BOOTING // S // 60} minutes"
        elif not memory.at:
            why = "which address it has was not heard here"
        elif memory.at != traits.address:
            why = f"{traits.address} asked, and by DHCP it is at {memory.at}"
        else:
            return replace(traits, boot=memory.boot, unproved="")
        return replace(traits, boot=0, unproved=why)

    def note_traits(self, traits: Traits) -> None:
        """A machine's loader told more of it (SMBIOS): remembered from the next datagram on. Any thread."""
        self._learnt.append(traits)

    def note_loader_served(self, machine: str, name: str, now: Ns) -> None:
        """A boot loader (catalog name) was fetched whole by this machine. Any thread."""
        self._notes.append((machine, name, now))

    def note_followed(self, machine: str, now: Ns) -> None:
        """A file that is no boot program was fetched whole by this machine. Any thread."""
        self._notes.append((machine, _FOLLOWED, now))

    def note_boots(self, machine: str, now: Ns) -> None:
        """A loader has the script that boots this machine: its next DISCOVER begins another boot. Any thread."""
        self._notes.append((machine, _BOOTS, now))

    def note_loader_started(self, machine: str, now: Ns) -> None:
        """A loader shows a sign of life on this machine: it asked for its script. Any thread."""
        self._notes.append((machine, "", now))

    # --- port 67 ------------------------------------------------------------------------------------------------

    def _discover(self, datagram: Datagram, message: Message, now: Ns, resumed: bool) -> list[Effect]:
        client = classify(message)
        if client.kind in _NOT_NETBOOT:
            return self._not_for_us(message, now, client)
        memory = self._machine(client, message)
        effects: list[Effect] = []
        if resumed or memory.is_copy(message, now):
            other = message.xid != memory.xid  # the machine has gone on to another attempt meanwhile
            if other or message.giaddr in memory.answered or len(memory.answered) == _COPIES:
                return []
        else:
            memory.begin(client, message, now)
            effects = [_discovered(datagram, message, client, memory.retry), *self._early_rival(memory, message, now)]
        if self.settings.mode == "off":
            memory.answered = (*memory.answered, message.giaddr)
            return effects + self._silent(client, "dhcp", "port 67 is left alone (--mode off)", now)
        self._learn(memory, client, message, datagram, "discover")
        target = self._target(memory, "discover", resumed)
        if isinstance(target, Ask):
            return [*effects, target]
        memory.answered = (*memory.answered, message.giaddr)
        effects += self._told(client, memory, target)
        if isinstance(target, Silence):
            return effects + self._silent(client, "dhcp", target.because, now)
        plan = decide(client, self._offerings(target), self._history(memory, now))
        if isinstance(plan, Silence):
            return effects + self._silent(client, "dhcp", plan.because, now)
        to = _to_client(datagram, message)
        if isinstance(to, Silence):
            return effects + self._silent(client, "dhcp", to.because, now)
        answer = self._answer(client, plan, datagram.ours, memory)
        reply = engine.offer(message, answer)
        if reply is None:
            return effects + self._silent(client, "dhcp", "no offer fits the size that its option 57 allows", now)
        memory.shape = plan.recipe
        file = printable(answer.boot_file)
        return [
            *effects,
            Send(dhcp4.emit(reply), to, dhcp4.SERVER_PORT, datagram.ours, datagram.interface),
            Offered(
                client.machine, plan.recipe, file, datagram.ours, datagram.interface, _because(client, plan, plan.how)
            ),
            *self._warnings(client, plan, now),
        ]

    def _not_for_us(self, message: Message, now: Ns, client: Client | None = None) -> list[Effect]:
        """A BOOTP request, an INFORM, or a DISCOVER of somebody who does not want to boot from the network."""
        client = client or classify(message)
        if message.type == dhcp4.INFORM and client.kind is not Kind.BSDP:
            return []  # an ordinary host asks its DHCP server for settings
        plan = decide(client, self.settings.offerings, History())
        return self._silent(client, "dhcp", plan.because, now)

    def _lease_requested(self, message: Message) -> list[Effect]:
        """A DHCPREQUEST to the network's DHCP server: the address it is about to have, or has."""
        address = dhcp4.address(message.option(dhcp4.REQUESTED_ADDRESS))
        if not address and message.ciaddr != _NONE:
            address = message.ciaddr
        by = dhcp4.address(message.option(dhcp4.SERVER_ID))
        return self._address(message.mac, address, by, _proxied(message)) if address else []

    def _address(self, machine: str, address: str, by: str, proxied: str = "") -> list[Effect]:
        """Remember who has which address; tell it once, and only of machines that boot from the network."""
        if not machine:
            return []
        self._macs.put(address, machine)
        memory = self._machines.get(machine)
        if memory is not None:
            memory.at = address
        if memory is None or memory.address == address:
            return []
        memory.address = address
        return [AddressSeen(machine, address, by, proxied)]

    # --- port 4011, and boot server discovery by broadcast ------------------------------------------------------

    def _boot_request(self, datagram: Datagram, message: Message, now: Ns, resumed: bool) -> list[Effect]:
        service = datagram.service
        client = classify(message)
        if message.type not in (dhcp4.REQUEST_LEASE, dhcp4.INFORM):
            kind = dhcp4.TYPE_NAMES[message.type] if message.type < len(dhcp4.TYPE_NAMES) else str(message.type)
            return self._silent(client, service, f"a boot server takes REQUEST and INFORM, not {kind}", now)
        address = message.ciaddr if message.ciaddr != _NONE else datagram.source[0]
        item = engine.boot_item(message)
        if client.kind in _NOT_NETBOOT:
            return self._silent(client, service, "a boot server request without a PXE client's options", now)
        memory = self._machine(client, message)
        effects: list[Effect] = []
        memory.asks(message, address, now)
        if client.machine and address != _NONE:
            self._macs.put(address, client.machine)
        asked = item[0] if item else -1
        if not resumed:
            effects.append(PxeRequested(client.machine, client.summary, address, datagram.source[1], asked))
        if item and item[1] & engine.CREDENTIALS:
            return effects + self._silent(
                client, service, "it wants a signed boot item (BIS), which is not served", now
            )
        self._learn(memory, client, message, datagram, "pxe")
        if wrong := self._choose(memory, asked, service, now):
            return effects + self._silent(client, service, wrong, now)
        target = self._target(memory, "pxe", resumed)
        if isinstance(target, Ask):
            return [*effects, target]
        effects += self._told(client, memory, target)
        if isinstance(target, Silence):
            return effects + self._silent(client, service, target.because, now)
        plan = decide(client, self._offerings(target), self._history(memory, now))
        if isinstance(plan, Silence):
            return effects + self._silent(client, service, plan.because, now)
        memory.shape = memory.shape or plan.recipe
        self._it_worked(memory)
        answer = self._answer(client, plan, datagram.ours, memory)
        reply = engine.acknowledge(message, answer)
        if reply is None:
            return effects + self._silent(client, service, "no answer fits the size that its option 57 allows", now)
        data = dhcp4.emit(reply)
        port = dhcp4.PXE_PORT if service == "pxe" else dhcp4.SERVER_PORT
        tos = _to_booter(datagram, message)
        if not tos:
            because = f"its address {printable(datagram.source[0])} is none that an answer could reach"
            return effects + self._silent(client, service, because, now)
        return [
            *effects,
            *(Send(data, to, port, datagram.ours, datagram.interface) for to in tos),
            PxeAnswered(client.machine, printable(answer.boot_file), datagram.ours, address, _because(client, plan)),
            *self._warnings(client, plan, now),
        ]

    def _choose(self, memory: _Machine, asked: int, service: str, now: Ns) -> str:
        """Remember which entry of its menu a machine asks for; why that is none that it was shown, or ""."""
        entries = memory.menu.entries if memory.menu is not None else ()
        index = asked - engine.MENU_TYPE
        if 0 <= index < len(entries):
            memory.choice, memory.chosen_at = entries[index][0], now
            memory.traits = replace(memory.traits, choice=memory.choice)
        elif asked >= 0 and asked != engine.MENU_TYPE and (service == "dhcp" or entries):
            return f"it looks for a boot server of type {asked}, which this one is not"
        return ""

    # --- what it boots ------------------------------------------------------------------------------------------

    def _target(self, memory: _Machine, stage: Stage, resumed: bool) -> Target | Silence | Ask:
        """What the machine shall boot; what it shall not boot from here is a Silence."""
        asking = replace(memory.traits, stage=stage)
        decision = self._deciding(asking)
        if decision is None:
            return Silence("nobody could say in time what it shall boot") if resumed else Ask(asking)
        memory.menu = decision.menu if isinstance(decision, Target) else None
        if isinstance(decision, Target) and decision.local:
            return Silence(f"it goes on with its own disk: {decision.because}")
        return decision

    def _told(self, client: Client, memory: _Machine, target: Target | Silence) -> list[Effect]:
        """The decision as a fact, once a boot, where it has a reason of its own."""
        if isinstance(target, Silence) or not target.because or memory.decided == target.because:
            return []
        memory.decided = target.because
        return [Decided(client.machine, target.what, target.profile, target.because)]

    def _offerings(self, target: Target) -> Offerings:
        offerings = self.settings.offerings
        if target.program:
            offerings = replace(offerings, program=target.program)
        if target.loader != "auto":
            offerings = replace(offerings, loader=target.loader)
        elif offerings.loader == "auto" and (target.script or "${" in target.cmdline):
            offerings = replace(offerings, loader="ipxe")  # nothing else runs its scripts, or looks ${ip} up
        if target.menu is not None:
            offerings = replace(offerings, menu=target.menu)
        return replace(offerings, suits=target.suits) if target.suits else offerings

    # --- neighbours ---------------------------------------------------------------------------------------------

    def _heard(self, message: Message, server: str, now: Ns) -> list[Effect]:
        """Is there something in a DHCP server's reply that keeps this machine from booting?

        EDK2 ends the boot where an offer has no mask (Dhcp4Impl.c), and goes to the port 4011 of a server whose offer
        has option 60 (PxeBcDhcp4.c). An ordinary offer is worth a word where the machine asks again in spite of it.
        """
        memory = self._machines.get(message.mac)
        if memory is None or (message.type == dhcp4.OFFER and message.yiaddr == _NONE):
            return []
        claims = (message.option(dhcp4.VENDOR_CLASS) or b"").startswith(b"PXEClient")
        what = "offer" if memory.retry else ""
        if message.type == dhcp4.NAK:
            what = "refusal"
        elif message.option(dhcp4.SUBNET_MASK) is None:
            what = "no subnet mask"
        elif claims and not message.boot_file:
            what = "vendor class alone"
        elif message.type == dhcp4.OFFER and lacks_server(message):
            what = "no next server"
        if not what:
            return []
        address = "" if message.yiaddr == _NONE else message.yiaddr
        fact = DhcpHeard(message.mac, server, what, address)
        return self._once(now, S * 20, fact, message.mac, server, what)

    def _rival(self, datagram: Datagram, message: Message, now: Ns) -> list[Effect]:
        """Is this reply another network boot server's? With an address in it, it is none of ours whoever sent it."""
        vendor = message.option(dhcp4.VENDOR_CLASS) or b""
        claims = vendor.startswith((b"PXEClient", b"HTTPClient"))
        file = message.boot_file
        server = _server(message, datagram)
        if message.yiaddr == _NONE:
            own = self._own.has(server) or self._own.has(datagram.source[0])
            if not claims or own or message.type != dhcp4.OFFER:
                return []
            return self._rival_seen(message, server, "proxy offer", now)
        effects: list[Effect] = []
        if claims:
            self._rival_vendor_until = now + _RIVAL_REMEMBERED
            what = f"the DHCP server {server} sends option 60 ({printable(vendor, 20)}), so machines look for PXE there"
            fix = f"remove option 60 (vendor class) from the DHCP server {server}: it is left over from another setup"
            effects += self._once(now, S * 3600, Warned("", what, fix), server, "option 60")
        if file and datagram.ours.encode() not in file and not self._own.has(message.siaddr):
            effects += self._rival_seen(message, server, "offer with a boot file", now)
            what = (
                f"the DHCP server {server} names a boot file of its own ({printable(file, 80)}); iPXE follows that one"
            )
            fix = f"remove the boot file (option 67, `filename`, `dhcp-boot`) from the DHCP server {server}"
            effects += self._once(now, S * 3600, Warned("", what, fix), server, "boot file")
        return effects

    def _rival_seen(self, message: Message, server: str, what: str, now: Ns) -> list[Effect]:
        """Told once in each attempt of a machine that netboots, since its verdict may be this; else once a minute.

        Replies are overheard on another socket than questions are heard on, so that one may be there too early.
        """
        fact = RivalSeen(message.mac, server, what, printable(message.boot_file))
        memory = self._machines.get(message.mac)
        if memory is not None and memory.xid == message.xid:
            return self._once(now, S * 60, fact, server, message.mac, str(memory.boot))
        self._early.put(message.mac, (message.xid, fact, now))
        return self._once(now, S * 60, fact, server)

    def _early_rival(self, memory: _Machine, message: Message, now: Ns) -> list[Effect]:
        """The reply that was overheard before the question that now begins an attempt."""
        early = self._early.pop(message.mac)
        if early is None or early[0] != message.xid or now - early[2] > _EARLY_REPLY:
            return []
        return self._once(now, S * 60, early[1], early[1].server, message.mac, str(memory.boot))

    # --- memory -------------------------------------------------------------------------------------------------

    def _catch_up(self, datagram: Datagram, now: Ns) -> list[Effect]:
        """What is due before a datagram is looked at."""
        self._own.put(datagram.ours, None)
        while self._learnt:
            learnt = self._learnt.popleft()
            if (memory := self._machines.get(learnt.machine)) is not None:
                memory.learn_more(learnt)
        while self._notes:
            machine, name, at = self._notes.popleft()
            memory = self._machines.get(machine)
            if memory is None:
                continue
            if name == _BOOTS:
                memory.program_begins()
            elif name in self.settings.offerings.programs:
                memory.program_begins(fetched=True)
                self._it_worked(memory)
            elif name:
                memory.follows(at)
                if name == _FOLLOWED:
                    continue
                memory.took(name, at)
                self._it_worked(memory)
            else:
                memory.lived, memory.dead = True, ()
        return [*self._refusals.due(now)]

    def _machine(self, client: Client, message: Message) -> _Machine:
        key = client.machine or message.chaddr.hex()
        memory = self._machines.get(key)
        if memory is None:
            memory = _Machine()
        self._machines.put(key, memory)
        memory.family = client.family
        return memory

    def _learn(self, memory: _Machine, client: Client, message: Message, datagram: Datagram, stage: Stage) -> None:
        seen = read_traits(client, message, ours=datagram.ours, interface=datagram.interface, stage=stage)
        memory.learn(replace(seen, hardware=self._hardware(client.machine)))

    def _history(self, memory: _Machine, now: Ns) -> History:
        return History(
            retry=memory.ignored,
            served=memory.served,
            dead=memory.dead,
            worked=self._worked.get(memory.family),
            rival_vendor=now < self._rival_vendor_until,
            programmed=memory.followed_at is not None and now - memory.followed_at < _SAME_BOOT,
        )

    def _it_worked(self, memory: _Machine) -> None:
        """The machine came further with the shape it was last offered: machines like it get that one first."""
        if memory.shape in _SHAPES and memory.family:
            self._worked.put(memory.family, memory.shape)

    def _once(self, now: Ns, every: Ns, fact: Fact, *key: str) -> list[Effect]:
        """`fact`, unless one with the same key was told less than `every` ago."""
        last = self._said.get((fact.kind, *key))
        if last is not None and now - last < every:
            return []
        self._said.put((fact.kind, *key), now)
        return [fact]

    def _silent(self, client: Client, service: str, because: str, now: Ns) -> list[Effect]:
        fact = Silent(client.machine, service, because, client.summary)
        return self._once(now, S * 60, fact, client.machine, service, because) if client.machine else [fact]

    def _warnings(self, client: Client, plan: Plan, now: Ns) -> list[Effect]:
        told: list[Effect] = []
        for what, fix in plan.warnings:
            told += self._once(now, S * 600, Warned(client.machine, what, fix), client.machine, what)
        return told

    def _answer(self, client: Client, plan: Plan, ours: str, memory: _Machine) -> engine.Answer:
        menu = memory.menu or self.settings.offerings.menu
        prefix = ""
        if PXELINUX.get(plan.loader.partition("/")[0]) == plan.loader and plan.loader:
            prefix = f"{_base(ours, self.settings.http_port)}/pxelinux/{loader_name(client.machine, '')}"
        if plan.recipe == "raspberry":
            file = ""
        elif not plan.loader:
            file = scripts.script_url(_base(ours, self.settings.http_port), client.machine)
        elif plan.over == "http":
            file = blob_url(ours, self.settings.http_port, client.machine, plan.loader)
        else:
            file = loader_name(client.machine, plan.loader)
        answer = engine.Answer(plan.recipe, ours, file.encode(), client.vendor, prefix=prefix.encode())
        if plan.recipe != "menu" or menu is None:
            return answer
        entries = tuple(
            (engine.MENU_TYPE + index if profile != LOCAL else 0, title.encode("ascii", "replace"))
            for index, (profile, title) in enumerate(menu.entries)
        )
        prompt = (menu.seconds, menu.prompt.encode("ascii", "replace"))
        return replace(answer, menu=entries, prompt=prompt, discovery=menu.discovery)


# --- names ------------------------------------------------------------------------------------------------------


def loader_name(machine: str, name: str) -> str:
    """TFTP name of a loader for one machine: "52-54-00-12-34-56/x86_64/snponly.efi"; the bare name without a MAC."""
    return f"{machine.replace(':', '-')}/{name}" if machine else name


def blob_url(ours: str, port: int, machine: str, name: str) -> str:
    """URL of a loader, kernel or initrd: "http://192.0.2.10/boot/52-54-00-12-34-56/x86_64/snponly.efi"."""
    return f"{_base(ours, port)}/boot/{loader_name(machine, name)}"


def split_machine(name: str) -> tuple[str, str]:
    """The MAC and the rest of a name as `loader_name` makes it, leading slashes allowed; ("", name) if it has no MAC.

    "52-54-00-12-34-56/x86_64/snponly.efi" is ("52:54:00:12:34:56", "x86_64/snponly.efi").
    """
    found = _MACHINE.match(name)
    return (found[1].lower().replace("-", ":"), name[found.end() :]) if found else ("", name)


# --- helpers ----------------------------------------------------------------------------------------------------

_NONE = "0.0.0.0"


def _everything(_: Traits) -> Decision:
    return Target("")


_MACHINE = re.compile(r"/*((?:[0-9A-Fa-f]{2}-){5}[0-9A-Fa-f]{2})/")
_FOLLOWED, _BOOTS = "/", "//"  # no catalog names
_NOT_NETBOOT = (Kind.HOST, Kind.BOOTP, Kind.BSDP)
_SHAPES: tuple[Recipe, ...] = ("direct", "binl", "menu")

_MACHINES = 4_096  # machines remembered
_FAMILIES = 256  # kinds of firmware remembered
_COPY: Ns = 500 * MS  # the shortest retry seen is iPXE's, 1 s (src/config/dhcp.h); relays' copies come within ms
_COPIES = 16  # relays that may forward one DISCOVER to us
_SAME_ATTEMPT: Ns = 60 * S  # the longest pause inside one attempt is 16 s (PXE 2.1 section 2.2.1: 4, 8, 16, 32)
_SAME_BOOT: Ns = 120 * S  # from a loader's last octet to its own DISCOVER: seconds; people take longer to reset twice
_BOOTING: Ns = 900 * S  # from a machine's DHCP messages to its script: people read menus of operators' scripts
_RIVAL_REMEMBERED: Ns = 3600 * S
_EARLY_REPLY: Ns = 2 * S  # what a busy server may take to come to the question that a rival has answered already


@dataclass(slots=True)
class _Machine:
    """What is remembered of one machine."""

    xid: int = -1
    secs: int = 0
    seen_at: Ns = 0
    retry: int = 0
    ignored: int = 0  # offers of this attempt that it asked again after
    answered: tuple[str, ...] = ()  # giaddrs of the copies of the last DISCOVER that were dealt with
    traits: Traits = field(default_factory=lambda: Traits(""))
    decided: str = ""  # the reason that was told in this boot
    menu: Menu | None = None  # that it was offered last
    choice: str = ""  # the profile that was chosen in it
    chosen_at: Ns = 0
    family: str = ""
    shape: Recipe | None = None  # last offered in this attempt
    served: tuple[str, ...] = ()  # loaders fetched whole in this boot, until one can do all that it needs
    served_at: Ns = 0
    lived: bool = False  # a loader has shown itself in this boot
    programmed: bool = False  # the boot program was fetched in this boot
    followed_at: Ns | None = None  # when something else was fetched after it
    dead: tuple[str, ...] = ()  # loaders that were fetched in earlier boots and never did
    address: str = ""  # told in this boot
    boot: int = 0  # counts what begins with a DISCOVER or a boot server request: several a boot, none after its script
    heard_at: Ns = 0
    boot_xid: int = -1
    at: str = ""  # the address that its DHCP messages showed since `boot` began

    def is_copy(self, message: Message, now: Ns) -> bool:
        return message.xid == self.xid and now - self.seen_at < _COPY

    def begin(self, client: Client, message: Message, now: Ns) -> None:
        """Account for a DISCOVER that is no copy: another try of the same attempt, another attempt, or a new boot."""
        firmware = client.kind is not Kind.IPXE
        again = (
            message.xid == self.xid
            and now - self.seen_at < _SAME_ATTEMPT
            and (message.secs >= self.secs or not firmware)
            and not (firmware and self.served)
        )
        self.retry = self.retry + 1 if again else 0
        if again and self.shape is not None:
            self.ignored += 1
        if not again:
            self.shape, self.ignored = None, 0
            self._new_boot(client, firmware, now)
            self.boot, self.at = self.boot + 1, ""
        self.xid, self.secs, self.seen_at, self.answered = message.xid, message.secs, now, ()
        self.heard_at = now

    def asks(self, message: Message, address: str, now: Ns) -> None:
        """Account for a boot server request, which may be all that is heard of a boot."""
        if message.xid != self.boot_xid:
            self.boot, self.boot_xid = self.boot + 1, message.xid
        self.heard_at = now
        if address != _NONE:
            self.at = address

    def learn(self, traits: Traits) -> None:
        """Keep what a message says, and of what was known before that which this one could not say."""
        before = self.traits
        firmware, vendor_class = traits.firmware, traits.vendor_class
        if traits.loader and before.firmware and (before.firmware == "bios") == (firmware == "bios"):
            firmware, vendor_class = before.firmware, before.vendor_class  # the firmware that brought the loader
        self.traits = replace(
            traits,
            uuid=traits.uuid or before.uuid,
            serial=before.serial,
            manufacturer=before.manufacturer,
            product=before.product,
            firmware=firmware,
            vendor_class=vendor_class,
            choice=self.choice,
        )

    def learn_more(self, told: Traits) -> None:
        """Keep what a loader read in the machine's SMBIOS."""
        self.traits = replace(
            self.traits,
            uuid=told.uuid or self.traits.uuid,
            serial=told.serial,
            manufacturer=told.manufacturer,
            product=told.product,
        )

    def took(self, name: str, at: Ns) -> None:
        """A loader was fetched. ROMs that never acknowledge the last block are believed late: it may live already."""
        if self.served or not self.lived:
            self.served, self.served_at = (*self.served[-7:], name), at

    def program_begins(self, *, fetched: bool = False) -> None:
        self.programmed, self.followed_at = fetched, None

    def follows(self, at: Ns) -> None:
        if self.programmed:
            self.followed_at = at

    def _new_boot(self, client: Client, firmware: bool, now: Ns) -> None:
        """Forget what belongs to the boot before; a loader that died in it is remembered until one lives."""
        if firmware:
            self.program_begins()
        if firmware or now - self.chosen_at >= _SAME_BOOT:
            self.choice = ""
        if firmware or not self.served:
            self.decided = ""
        if firmware:
            if self.served and not self.lived and now - self.served_at < _SAME_BOOT:
                self.dead = tuple(dict.fromkeys((*self.dead, self.served[-1])))[-8:]
            self.served, self.lived, self.address = (), False, ""
        elif isinstance(decide(client, Offerings(), History()), Plan):  # it needs no loader
            self.served, self.lived, self.dead = (), True, ()
        elif not self.served or now - self.served_at >= _SAME_BOOT:
            self.served, self.lived = (), False


@dataclass(slots=True)
class _Refusals:
    """Refused facts at a bearable rate: five in ten seconds one by one, the rest as a count when the ten are over."""

    started: Ns = 0
    told: int = 0
    untold: int = 0
    last: tuple[str, str, str] = field(default=("", "", ""))  # service, source, because

    EACH = 5
    SPAN = 10 * S

    @property
    def deadline(self) -> Ns | None:
        return self.started + self.SPAN if self.untold else None

    def add(self, datagram: Datagram, because: str, now: Ns) -> list[Effect]:
        source = f"{datagram.source[0]}:{datagram.source[1]}"
        if now - self.started >= self.SPAN:
            self.started, self.told = now, 0
        if self.told < self.EACH:
            self.told += 1
            return [Refused("", datagram.service, source, because, datagram.data[:64].hex())]
        self.untold += 1
        self.last = (datagram.service, source, because)
        return []

    def due(self, now: Ns) -> Iterable[Fact]:
        if not self.untold or now - self.started < self.SPAN:
            return ()
        service, source, because = self.last
        summary = f"{self.untold:,} more in {self.SPAN // S} s, the last one: {because}"
        self.untold = 0
        return (Refused("", service, source, summary),)


def _base(ours: str, port: int) -> str:
    return f"http://{ours}" if port == 80 else f"http://{ours}:{port}"


def _server(message: Message, datagram: Datagram) -> str:
    return dhcp4.address(message.option(dhcp4.SERVER_ID)) or datagram.source[0]


def _because(client: Client, plan: Plan, how: str = "") -> str:
    because = f"{plan.because}; {how}" if how else plan.because
    oddities = [quirk.name for quirk in client.quirks]
    return f"{because} [{', '.join(oddities)}]" if oddities else because


def _proxied(message: Message) -> str:
    """Whether a DHCPREQUEST says that a ProxyDHCP offer came: iPXE has that in bit 0 of `secs` (dhcp.c, dhcp_tx)."""
    return ("yes" if message.secs & 1 else "no") if classify(message).kind is Kind.IPXE else ""


def _discovered(datagram: Datagram, message: Message, client: Client, retry: int) -> Discovered:
    return Discovered(
        client.machine,
        client=client.summary,
        arch=client.architecture,
        uuid=client.uuid,
        xid=message.xid,
        interface=datagram.interface,
        relay="" if message.giaddr == _NONE else message.giaddr,
        vendor_class=client.vendor_class,
        user_class=client.user_class,
        retry=retry,
    )


def _to_client(datagram: Datagram, message: Message) -> tuple[str, int] | Silence:
    """Where an OFFER goes: to the relay if there is one (RFC 2131 section 4.1), else to everybody on port 68."""
    relay = message.giaddr
    if relay == _NONE:
        return "255.255.255.255", dhcp4.CLIENT_PORT
    to = relay, _relay_port(datagram, message)
    if not _reachable(to, datagram.ours):
        return Silence(f"its relay address {relay} is none that an answer could reach")
    return to


def _relay_port(datagram: Datagram, message: Message) -> int:
    """67, or where the relay says so its own source port (RFC 8357 section 5.1)."""
    value = message.option(dhcp4.RELAY_AGENT)
    if value is not None:
        try:
            if any(code == dhcp4.RELAY_PORT for code, _ in dhcp4.sub_options(value, padded=False)):
                return datagram.source[1] or dhcp4.SERVER_PORT
        except WireError:
            pass  # not ours to judge: the option is echoed as it came
    return dhcp4.SERVER_PORT


def _to_booter(datagram: Datagram, message: Message) -> list[tuple[str, int]]:
    """Where a boot server's ACK goes: back to where the request came from, whatever port that is (EDK2 sends from 4011,
    iPXE from 68). A client that says it has no address is answered by broadcast, too (dnsmasq rfc2131.c).
    """
    everybody = ("255.255.255.255", dhcp4.CLIENT_PORT)
    if datagram.service == "dhcp":  # discovery by broadcast; clients listen on port 68
        if message.giaddr != _NONE:
            relay = _to_client(datagram, message)
            return [] if isinstance(relay, Silence) else [relay]
        if message.ciaddr == _NONE or message.flags & dhcp4.BROADCAST:
            return [everybody]
        to = message.ciaddr, dhcp4.CLIENT_PORT
        return [to] if _reachable(to, datagram.ours) else []
    direct = [datagram.source] if _reachable(datagram.source, datagram.ours) else []
    return [*direct, everybody] if message.ciaddr == _NONE else direct


def _reachable(to: tuple[str, int], ours: str) -> bool:
    """May a reply go there? Not to 0/8, multicast, broadcast or our own services; to loopback only from loopback."""
    address, port = to
    first = int(address.split(".", 1)[0])
    if address == ours and port in (dhcp4.SERVER_PORT, dhcp4.PXE_PORT):
        return False
    return port > 0 and 0 < first < 224 and (first != 127 or ours.startswith("127."))
