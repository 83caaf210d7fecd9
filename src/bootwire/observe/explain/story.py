"""A machine's story in sentences: who asked, who answered, what the firmware did with it and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bootwire.observe import names, options
from bootwire.observe.explain import signatures, story6
from bootwire.observe.explain.gather import SECOND, Machine, Said
from bootwire.observe.explain.transfers import Exchange, Transfer
from bootwire.policy import offers as sort
from bootwire.policy.client import Kind
from bootwire.wire import dhcp4
from bootwire.wire.text import printable

_LIMIT = 300  # sentences of one machine


@dataclass(frozen=True, slots=True)
class Sentence:
    """at: nanoseconds since the Unix epoch; details: lines below it, shown with -v."""

    at: int
    text: str
    details: tuple[str, ...] = ()


def story(machine: Machine) -> list[Sentence]:
    """In order of time, at most _LIMIT."""
    told = [*_dhcp(machine), *(Sentence(*one) for one in story6.sentences(machine))]
    told += [Sentence(one.began, _file(machine, one)) for one in machine.transfers]
    told += [Sentence(one.began, _exchange(one)) for one in machine.exchanges]
    told += [Sentence(at, f"It writes to its log: {text}") for at, text in machine.console]
    told += [
        Sentence(one.at, f"It asks for the address of {one.name}: {_looked(one.answered, one.code)}.")
        for one in machine.lookups
    ]
    for connection in machine.connections:
        if not connection.accepted:
            how = "is refused" if connection.reset_by == "server" else "gets no answer"
            told.append(Sentence(connection.began, f"It connects to {connection.server}:{connection.port} and {how}."))
    told.sort(key=lambda one: one.at)
    if len(told) > _LIMIT:
        last = Sentence(told[_LIMIT].at, f"(and {len(told) - _LIMIT} more)")
        return [*told[:_LIMIT], last]
    return told


def _looked(answered: bool, code: int) -> str:
    if not answered:
        return "no answer"
    return "answered" if code == 0 else f"error {code}"


def _dhcp(machine: Machine) -> Iterator[Sentence]:
    asked = 0
    xid = -1
    boot_xid = (0, "")
    boot_asked = 0
    for one in machine.said:
        message = one.message
        details = tuple(options.described(message))
        if one.from_client and message.type == dhcp4.DISCOVER:
            asked = asked + 1 if message.xid == xid else 1
            xid = message.xid
            relay = f", through relay {message.giaddr}" if message.giaddr != signatures.NOWHERE else ""
            again = f" again ({asked})" if asked > 1 else ""
            yield Sentence(one.at, f"{one.client.summary} asks who is there{again}{relay}.", details)
        elif one.from_client and one.dport == dhcp4.PXE_PORT:
            boot_asked = boot_asked + 1 if boot_xid == (message.xid, one.destination) else 1
            boot_xid = (message.xid, one.destination)
            again = f" again ({boot_asked})" if boot_asked > 1 else ""
            yield Sentence(one.at, f"It asks {one.destination} on port 4011 for its boot file{again}.", details)
        elif one.from_client:
            if text := _request(machine, one):
                yield Sentence(one.at, text, details)
        else:
            yield Sentence(one.at, _reply(one), details)


def _request(machine: Machine, one: Said) -> str:
    message = one.message
    if message.type == dhcp4.REQUEST_LEASE:
        server = dhcp4.address(message.option(dhcp4.SERVER_ID))
        wanted = dhcp4.address(message.option(dhcp4.REQUESTED_ADDRESS)) or message.ciaddr
        of = f" of {server}" if server else ""
        return f"It takes {wanted}{of}. {chosen(machine, one)}".rstrip()
    if message.type == dhcp4.DECLINE:
        why = printable(message.option(dhcp4.MESSAGE) or b"", 120)
        return f"It declines its address{f': {why}' if why else ''}."
    if message.type == dhcp4.RELEASE:
        return f"It gives {message.ciaddr} back."
    if message.type == dhcp4.INFORM:
        return f"{one.client.summary} asks for settings (INFORM)."
    return f"{one.client.summary} sends {_type(message.type)}."


def chosen(machine: Machine, request: Said) -> str:
    """Why the firmware took what it took, and what it does with the boot offers (EDK2's, iPXE's and PXE's rules)."""
    asked = [one for one in signatures.discovers(machine) if one.at <= request.at]
    if not asked:
        return ""
    since = next((one.at for one in asked if one.message.xid == asked[-1].message.xid), asked[-1].at)
    heard = [one for one in machine.of(dhcp4.OFFER, client=False) if since <= one.at <= request.at]
    proxies = [one for one in heard if one.message.yiaddr == signatures.NOWHERE]
    files = [one for one in heard if one.message.boot_file]
    client = asked[-1].client
    if client.kind is Kind.IPXE:
        return _by_ipxe(heard, proxies)
    if client.kind is Kind.HTTP:
        uri = next((one for one in files if b"://" in one.message.boot_file), None)
        if uri is None:
            return "No offer holds a URL: HTTP Boot ends here."
        return f"It will load {_name(uri)}, as {uri.server} offers."
    if client.kind is not Kind.PXE:
        return ""
    if client.bios:
        own = next((one for one in heard if one not in proxies and sort.is_pxe(one.message)), None)
        source = next((one for one in proxies if sort.is_pxe(one.message)), own)
        if source is None:
            return f"It boots {_name(files[0])} from {files[0].server}." if files else "No offer says what to boot."
        if sort.boots_directly(source.message):
            return f"It boots {_name(source)} at once: {source.server} says so (option 43, bit 3)."
        return f"It goes to {source.server}, port 4011: a PXE offer that does not say to boot at once."
    by_kind = {sort.kind(one.message): one for one in reversed(heard)}
    for own_kind, proxy_kind in sort.ORDER:
        if own_kind in by_kind and (not proxy_kind or proxy_kind in by_kind):
            one = by_kind[proxy_kind or own_kind]
            if (own_kind, proxy_kind) == ("DhcpOnly", "") and not one.message.boot_file:
                break
            why = f"EDK2's class {own_kind}{' with ' + proxy_kind if proxy_kind else ''}, the first in its order"
            if own_kind.endswith("Binl") or proxy_kind.endswith("Binl"):
                return f"It goes on to {one.server}, port 4011 ({why})."
            return f"It goes by the offer of {one.server} ({why})."
    return "No offer says what to boot."


def _by_ipxe(heard: list[Said], proxies: list[Said]) -> str:
    own = next((one for one in heard if one not in proxies and one.message.boot_file), None)
    if own is not None and proxies:
        return f"iPXE follows {own.server} ({_name(own)}): a DHCP server's own file goes before a proxy's."
    usable = next((one for one in reversed(proxies) if one.message.boot_file), None)
    if usable is not None:
        return f"iPXE follows the proxy {usable.server}: {_name(usable)}."
    return f"iPXE follows {own.server}: {_name(own)}." if own else "No offer says what to boot."


def _reply(one: Said) -> str:
    message = one.message
    name = f"the file {_name(one)}" if message.boot_file else ""
    if one.sport == dhcp4.PXE_PORT or one.dport == dhcp4.PXE_PORT:
        where = f" from {message.siaddr}" if message.siaddr != signatures.NOWHERE else ""
        return f"{one.source} answers from port {one.sport}: {name or 'no file'}{where}."
    if message.type == dhcp4.OFFER:
        address = "" if message.yiaddr == signatures.NOWHERE else f"the address {message.yiaddr}"
        pxe = "" if name or not sort.is_pxe(message) else "a boot server (option 60)"
        what = " and ".join(part for part in (address, name, pxe) if part) or "nothing of use"
        kind = "as a proxy, " if not address else ""
        return f"{one.server} offers {kind}{what}."
    if message.type == dhcp4.ACK:
        return f"{one.server} gives it {message.yiaddr}{' and ' + name if name else ''}."
    if message.type == dhcp4.NAK:
        why = printable(message.option(dhcp4.MESSAGE) or b"", 120)
        return f"{one.server} refuses (NAK{f': {why}' if why else ''})."
    return f"{one.server} sends {_type(message.type)}."


def _type(number: int) -> str:
    return dhcp4.TYPE_NAMES[number] if number < len(dhcp4.TYPE_NAMES) else f"message type {number}"


def _name(one: Said) -> str:
    return printable(one.message.boot_file, 120)


def _file(machine: Machine, one: Transfer) -> str:
    asked = f"It asks {one.server} for {one.name or 'a file without a name'} over TFTP"
    if one.repeats:
        asked += f" {one.repeats + 1} times"
    asked += f" ({', '.join(f'{k} {v}' for k, v in one.asked.items())})" if one.asked else ""
    if signatures.is_probe(machine, one):
        size = (one.agreed or {}).get("tsize", "")
        return f"{asked}: only its size{f', {size} octets' if size else ''}."
    if one.who:
        after = f" after {one.octets} octets" if one.octets else ""
        by = f"it ends that itself{after}" if one.who == "client" else f"the server ends it{after}"
        by = by if after or one.who == "client" else "the server refuses"
        return f"{asked}: {by}: {one.text.rstrip('.') or f'error {one.code}'}."
    if not one.answered:
        return f"{asked}: no answer."
    seconds = (one.ended - one.began) / SECOND
    again = f", {one.data_repeats} blocks came again" if one.data_repeats else ""
    if one.complete:
        return f"{asked}: {one.octets} octets in {seconds:.1f} s, in blocks of {one.block_size}{again}."
    return f"{asked}: {one.octets} octets, not to the end{again}."


def _exchange(one: Exchange) -> str:
    stage = names.stage_of(one.path.lstrip("/"))
    what = f", its {stage}," if stage else ""
    asked = f"It asks {one.server} for {one.path}{what} over HTTP ({one.method}{', ' + one.agent if one.agent else ''})"
    if not one.status:
        return f"{asked}: no answer."
    if one.status >= 300:
        return f"{asked}: status {one.status}."
    if one.method == "HEAD":
        return f"{asked}: {one.length if one.length >= 0 else 'unknown'} octets of {one.kind or 'no type'}."
    short = "" if one.complete else f" of {one.length}"
    return f"{asked}: {one.octets}{short} octets."
