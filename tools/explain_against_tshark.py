"""`bootwire explain` beside Wireshark's decode, over any captures: field by field, every difference a line.

    .venv/bin/python tools/explain_against_tshark.py FILE-OR-DIRECTORY ...

Every DHCP and DHCPv6 message: header, each option's octets, and each value as explain prints it. Every TFTP transfer:
name, options, what was agreed, blocks, error. Every HTTP request and status. Exit status 0 where nothing differs, 1
where something does. Captures that tshark or we cannot read are told and not counted as differences.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bootwire.observe import explain, options, options6
from bootwire.observe.explain import signatures
from bootwire.observe.explain.layers import Fragment, Layers
from bootwire.observe.explain.transfers import Transfer
from bootwire.wire import dhcp4, dhcp6, pcap
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable

ENDINGS = (".pcap", ".pcapng", ".cap", ".trace", ".ntar")
DHCP_PORTS, DHCP6_PORTS = frozenset((67, 68, 4011)), frozenset((546, 547))
SEPARATOR = "\x1f"  # between values of one field: in no file name or URL


# --- tshark's side ----------------------------------------------------------------------------------------------

Child = tuple[str, str]  # tshark's field name, its value as shown


@dataclass(frozen=True, slots=True)
class Theirs:
    """One DHCP message as tshark reads it. payload: of UDP; options: (code, octets, fields below it) in our order."""

    number: int
    payload: bytes
    fields: dict[str, str]
    options: tuple[tuple[int, bytes, tuple[Child, ...]], ...]
    broken: bool


def tshark(path: Path, *more: str) -> str:
    """tshark's output; raises CalledProcessError where it cannot read the file from its first octet on."""
    command = ["tshark", "-n", "-r", str(path), *more]
    done = subprocess.run(command, capture_output=True, timeout=300)
    if done.returncode and not done.stdout:
        raise subprocess.CalledProcessError(done.returncode, command, b"", done.stderr)
    return done.stdout.decode("utf-8", "replace")


def their_messages(path: Path) -> Iterator[Theirs]:
    """Every DHCP message of the capture."""
    for number, payload, broken, proto in _packets(path, "dhcp"):
        fields: dict[str, str] = {}
        found, lent = [], []
        for one in proto:
            name, show = one.get("name") or "", one.get("show") or ""
            if name != "dhcp.option.type":
                fields.setdefault(name, show)
                continue
            areas = sorted(
                (area for area in one if area.find("field[@name='dhcp.option.type']") is not None),
                key=lambda area: (area.get("show") or "").startswith("Server"),
            )  # what option 52 lends, in the order of RFC 3396: file, sname
            found += _option(one) if not areas else []
            lent += [read for area in areas for below in area for read in _option(below)]
        yield Theirs(number, payload, fields, (*found, *lent), broken)


def _packets(path: Path, protocol: str) -> Iterator[tuple[int, bytes, bool, ElementTree.Element]]:
    """(number, UDP payload, malformed, what tshark tells of the protocol) of each packet that has it."""
    text = tshark(path, "-Y", protocol, "-d", "udp.port==4011,dhcp", "-T", "pdml")
    for packet in ElementTree.fromstring(_closed(text)).iter("packet"):
        number = int(next(one.get("show") or "0" for one in packet.iter("field") if one.get("name") == "num"))
        broken = any(one.get("name") == "_ws.malformed" for one in packet.iter())
        proto = next((one for one in packet.iter("proto") if one.get("name") == protocol), None)
        payload = next((one.get("value") or "" for one in packet.iter("field") if one.get("name") == "udp.payload"), "")
        if proto is not None:
            yield number, bytes.fromhex(payload), broken, proto


def _option(one: ElementTree.Element) -> list[tuple[int, bytes, tuple[Child, ...]]]:
    """One option, none for END and PAD."""
    children = [(child.get("name") or "", child.get("show") or "") for child in one.iter("field")][1:]
    octets = next((child.get("value") for child in one if child.get("name") == "dhcp.option.value"), "")
    code = int(one.get("show") or "0")
    if code in (0, 255) or ("dhcp.option.end", "255") in children:
        return []
    return [(code, bytes.fromhex(octets or ""), tuple(children))]


def _closed(text: str) -> str:
    """What a capture cut in the middle leaves of the document, whole again."""
    if "</packet>" not in text:
        return "<pdml/>"
    return text if text.rstrip().endswith("</pdml>") else text[: text.rindex("</packet>") + 9] + "</pdml>"


def rows(path: Path, shown: str, *fields: str) -> list[dict[str, list[str]]]:
    """The fields of the packets that `shown` selects."""
    words = [word for one in fields for word in ("-e", one)]
    text = tshark(
        path, "-Y", shown, "-d", "udp.port==4011,dhcp", "-T", "fields", "-E", f"aggregator={SEPARATOR}", *words,
    )  # fmt: skip
    cells = [line.split("\t") for line in text.split("\n")[:-1]]
    return [
        {name: cell.split(SEPARATOR) if cell else [] for name, cell in zip(fields, row, strict=False)} for row in cells
    ]


# --- what explain should say of an option, from tshark's fields ----------------------------------------------------


def _shown(name: str, between: str = ", ") -> Callable[[list[Child]], str | None]:
    """The values of one field."""
    return lambda children: between.join(show for have, show in children if have == name)


def _first(children: list[Child], name: str) -> str:
    return next((show for have, show in children if have == name), "")


def _type(children: list[Child]) -> str:
    number = int(_first(children, "dhcp.option.dhcp"))
    return dhcp4.TYPE_NAMES[number] if number < len(dhcp4.TYPE_NAMES) else f"{number:02x}"


def _architecture(children: list[Child]) -> str:
    numbers = [int(show, 0) for have, show in children if have == "dhcp.option.client_system_architecture"]
    return ", ".join(options.architecture_text(number) for number in numbers)


def _interface(children: list[Child]) -> str | None:
    major, minor = _first(children, "dhcp.client_network_id_major"), _first(children, "dhcp.client_network_id_minor")
    return f"UNDI {major}.{minor}" if major and minor else None


def _client_id(children: list[Child]) -> str | None:
    if uuid := _first(children, "dhcp.client_id.uuid"):
        return f"UUID {uuid}"
    return f"Ethernet {mac}" if (mac := _first(children, "dhcp.hw.mac_addr")) else None


def _static_routes(children: list[Child]) -> str:
    to = [show for have, show in children if have == "dhcp.option.static_route.ip"]
    via = [show for have, show in children if have == "dhcp.option.static_route.router"]
    return ", ".join(f"{one} via {two}" for one, two in zip(to, via, strict=True))


def _user_class(children: list[Child]) -> str | None:
    if text := _first(children, "dhcp.option.user_class.text"):
        return text
    data = [show for have, show in children if have == "dhcp.option.user_class.data"]
    return " ".join(bytes.fromhex(one.replace(":", "")).decode("latin-1") for one in data) if data else None


def _enterprise(prefix: str) -> Callable[[list[Child]], str | None]:
    def made(children: list[Child]) -> str | None:
        numbers = [show for have, show in children if have == f"{prefix}.enterprise"]
        return f"enterprise {numbers[0]}: " if len(numbers) == 1 else None

    return made


_PXE = "dhcp.option.vendor.pxeclient."
_RELAY = "dhcp.option.agent_information_option."


def _pxe(children: list[Child]) -> str | None:
    """Option 43 of a PXE message, sub-option by sub-option."""
    told: list[str] = []
    for at, (name, show) in enumerate(children):
        if name != _PXE + "suboption":
            continue
        rest = children[at + 1 :]
        ends = next((i for i, (have, _) in enumerate(rest) if have == _PXE + "suboption"), len(rest))
        told.append(_pxe_one(int(show), rest[:ends]))
    return "; ".join(told) if told else None


def _pxe_one(code: int, inner: list[Child]) -> str:
    word = options.PXE_NAMES.get(code, str(code))

    def of(name: str) -> list[str]:
        return [show for have, show in inner if have == _PXE + name]

    if code == 6 and of("discovery_control"):
        bits = ("broadcast", "multicast", "serverlist", "bstrap")
        says = ("no broadcast", "no multicast", "listed servers only", "boot the file at once")
        names = [
            said
            for bit, said in zip(bits, says, strict=True)
            if of(f"discovery_control.{bit}")[:1] in (["1"], ["True"])
        ]
        return f"{word} {int(of('discovery_control')[0], 0)} ({', '.join(names) or 'any boot server'})"
    if code == 7:
        return f"{word} {of('multicast_address')[0]}"
    if code == 8:
        addresses = iter(of("boot_servers.ip"))
        counts = zip(of("boot_servers.type"), of("boot_servers.count"), strict=True)
        listed = (f"type {kind}{''.join(' ' + next(addresses) for _ in range(int(count)))}" for kind, count in counts)
        return f"{word} {', '.join(listed)}"
    if code == 9:
        menu = zip(of("boot_menu.type"), of("boot_menu.desc"), strict=True)
        return f"{word} " + ", ".join(f'type {kind} "{text}"' for kind, text in menu)
    if code == 10:
        wait = of("menu_prompt.timeout")[0]
        wait = {"0": "at once", "255": "for ever"}.get(wait, f"{wait} s")
        return f'{word} {wait} "{(of("menu_prompt.prompt") or [""])[0]}"'
    if code == 71:
        layer = int(of("boot_item.layer")[0].replace(":", ""), 16)
        return f"{word} type {of('boot_item.type')[0]}, layer {layer}"
    raw = next((show for have, show in inner if have == "dhcp.option.vendor.value"), "")
    return f"{word} {_guess(raw)}"


def _relay(children: list[Child]) -> str | None:
    """Option 82: texts where they are texts, addresses, octets."""
    told: list[str] = []
    for at, (name, show) in enumerate(children):
        if name != _RELAY + "suboption":
            continue
        rest = dict(reversed(children[at + 1 : at + 6]))
        address = next((rest[one] for one in rest if one in _RELAY_ADDRESSES), "")
        text = address if int(show) in (5, 11, 150, 152) and address else _guess(rest.get(_RELAY + "value", ""))
        told.append(f"{options.RELAY_NAMES.get(int(show), show)} {text}")
    return "; ".join(told) if told else None


_RELAY_ADDRESSES = tuple(
    _RELAY + one for one in ("link_selection", "server_id_override", "link_selection_cisco", "server_id_override_cisco")
)


def _guess(shown: str) -> str:
    """Octets with colons between, as text if they are one, else with spaces between."""
    raw = bytes.fromhex(shown.replace(":", ""))
    text = raw.strip(b"\0")
    if len(text) > 2 and all(0x20 <= octet < 0x7F for octet in text):
        return text.decode()
    return raw.hex(" ") or "(empty)"


_NAMED: dict[int, str] = {
    1: "subnet_mask", 2: "time_offset", 3: "router", 4: "time_server", 5: "name_server", 6: "domain_name_server",
    7: "log_server", 12: "hostname", 13: "boot_file_size", 15: "domain_name", 17: "root_path", 18: "extension_path",
    23: "default_ip_ttl", 26: "interface_mtu", 28: "broadcast_address", 40: "nis_domain", 41: "nis_server",
    42: "ntp_server", 44: "netbios_over_tcpip_name_server", 46: "netbios_over_tcpip_node_type",
    47: "netbios_over_tcpip_scope", 50: "requested_ip_address", 51: "ip_address_lease_time", 54: "dhcp_server_id",
    55: "request_list_item", 56: "message", 57: "dhcp_max_message_size", 58: "renewal_time_value",
    59: "rebinding_time_value", 60: "vendor_class_id", 66: "tftp_server_name", 67: "bootfile_name",
    69: "smtp_server", 72: "default_www_server", 116: "dhcp_auto_configuration", 118: "subnet_selection_option",
    119: "dhcp_dns_domain_search_list_fqdn", 150: "tftp_server_address", 209: "pxe_config_file",
    210: "pxe_path_prefix", 252: "private_proxy_autodiscovery",
}  # fmt: skip

EXPECTED: dict[int, Callable[[list[Child]], str | None]] = {
    **{code: _shown(f"dhcp.option.{name}") for code, name in _NAMED.items()},
    33: _static_routes,
    43: _pxe,
    53: _type,
    61: _client_id,
    77: _user_class,
    82: _relay,
    93: _architecture,
    94: _interface,
    97: _shown("dhcp.client_id.uuid"),
}
"""By option code: what explain should print, None where tshark itself has only octets for it."""


# --- DHCP: ours beside theirs ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Report:
    """What one capture came to. differences: a line each; compared: how many values of which kind."""

    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    compared: Counter[str] = field(default_factory=Counter)
    summary: str = ""

    def same(self, where: str, what: str, ours: object, theirs: object) -> None:
        self.compared[what.split(" ")[0]] += 1
        if ours != theirs:
            self.differences.append(f"{where}: {what}: we say {ours!r}, tshark {theirs!r}")


def our_messages(path: Path, ports: frozenset[int]) -> Iterator[bytes]:
    """The whole UDP payloads at these ports."""
    layers = Layers()
    with path.open("rb") as file:
        for packet in pcap.read(iter(lambda: file.read(65_536), b"")):
            seen = layers.peel(packet)
            if seen is None or isinstance(seen, Fragment) or not isinstance(seen.body, bytes) or seen.cut:
                continue
            if not ports.isdisjoint((seen.sport, seen.dport)):
                yield seen.body


def compare_dhcp(path: Path, report: Report) -> None:
    """Every DHCP message, header and options."""
    ours: Counter[bytes] = Counter()
    try:
        for payload in our_messages(path, DHCP_PORTS):
            ours[payload] += 1
    except WireError as error:
        report.notes.append(f"we cannot read it to its end: {error}")
    for theirs in their_messages(path):
        where = f"packet {theirs.number}"
        ours[theirs.payload] -= 1
        if ours[theirs.payload] < 0:
            report.notes.append(f"{where}: DHCP for tshark only (cut, tunnelled or another link layer)")
            continue
        try:
            message = dhcp4.parse(theirs.payload)
        except WireError as error:
            report.notes.append(
                f"{where}: we refuse it: {error}" + ("; malformed for tshark, too" if theirs.broken else "")
            )
            continue
        if not theirs.broken:
            compare_header(where, message, theirs, report)
            compare_options(where, message, theirs, report)
    left = sum(number for number in ours.values() if number > 0)
    if left:
        report.notes.append(f"{left} messages at DHCP's ports that are none for tshark")


def compare_header(where: str, message: dhcp4.Message, theirs: Theirs, report: Report) -> None:
    """The fixed fields of one message."""
    fields = theirs.fields
    for name, ours in (
        ("dhcp.type", message.op), ("dhcp.hw.len", message.hlen), ("dhcp.hops", message.hops), ("dhcp.id", message.xid),
        ("dhcp.secs", _seconds(message.secs)), ("dhcp.flags", message.flags), ("dhcp.hw.type", message.htype),
    ):  # fmt: skip
        report.same(where, f"header {name}", ours, int(fields[name], 0))
    for name, address in (
        ("client", message.ciaddr), ("your", message.yiaddr), ("server", message.siaddr), ("relay", message.giaddr),
    ):  # fmt: skip
        report.same(where, f"header dhcp.ip.{name}", address, fields[f"dhcp.ip.{name}"])
    if "dhcp.hw.mac_addr" in fields and message.mac:
        report.same(where, "header dhcp.hw.mac_addr", message.mac, fields["dhcp.hw.mac_addr"])
    for name, raw in (("dhcp.server", message.sname), ("dhcp.file", message.file)):
        text = raw.split(b"\0")[0].decode("utf-8", "replace")
        if "\ufffd" not in text:
            report.same(where, f"header {name}", text, fields.get(name, ""))


def _seconds(secs: int) -> int:
    """As tshark shows it where the octets are swapped."""
    return secs >> 8 if secs > 0xFF and not secs & 0xFF else secs


def compare_options(where: str, message: dhcp4.Message, theirs: Theirs, report: Report) -> None:
    """Codes, octets and printed values of one message."""
    joined: dict[int, bytes] = {}
    children: dict[int, list[Child]] = {}
    for code, octets, below in theirs.options:
        joined[code] = joined.get(code, b"") + octets
        children.setdefault(code, []).extend(below)
    overload = joined.pop(dhcp4.OVERLOAD, b"")
    if overload not in (b"", b"\1", b"\2", b"\3"):
        joined[dhcp4.OVERLOAD] = overload
    report.same(where, "codes", [code for code, _ in message.options], list(joined))
    vendor = message.option(dhcp4.VENDOR_CLASS) or b""
    for code, octets in message.options:
        if code not in joined:
            continue
        report.same(where, f"octets of option {code}", octets.hex(), joined[code].hex())
        once = sum(have == code for have, _, _ in theirs.options) == 1  # tshark reads pieces one by one
        expected = EXPECTED[code](children[code]) if once and code in EXPECTED else None
        says = options.value_text(code, octets, vendor)
        if not expected or not expected.isascii() or (len(expected) > 100 and code != dhcp4.REQUEST_LIST):
            continue  # nothing to show for tshark either, or too long for a line
        report.same(where, f"value of option {code}", says, expected)


# --- DHCPv6 ---------------------------------------------------------------------------------------------------------


def _association(children: list[Child]) -> str:
    """IA_NA: its number, addresses and status."""
    told = [f"IAID {_first(children, 'dhcpv6.iaid')}"]
    lives = [show for have, show in children if have == "dhcpv6.iaaddr.valid_lifetime"]
    found = [show for have, show in children if have == "dhcpv6.iaaddr.ip"]
    told += [
        f"{one} for {'ever' if life in ('4294967295', 'infinity') else life + ' s'}"
        for one, life in zip(found, lives, strict=True)
    ]
    return ", ".join(told + ([_status(children)] if _first(children, "dhcpv6.status_code") else []))


def _status(children: list[Child]) -> str:
    code, text = _first(children, "dhcpv6.status_code"), _first(children, "dhcpv6.status_msg")
    return options6.STATUSES.get(int(code), code) + (f": {text}" if text else "")


def _duid(children: list[Child]) -> str:
    for name, word in (
        ("duiduuid.bytes", "UUID"), ("duidllt.link_layer_addr", "link-layer and time"),
        ("duidll.link_layer_addr", "link-layer"),
    ):  # fmt: skip
        if shown := _first(children, f"dhcpv6.{name}"):
            return f"{word} {shown.replace(':', '') if word == 'UUID' else shown}"
    return _first(children, "dhcpv6.duid.bytes").replace(":", " ")


EXPECTED6: dict[int, Callable[[list[Child]], str | None]] = {
    1: _duid,
    2: _duid,
    3: _association,
    6: _shown("dhcpv6.requested_option_code"),
    8: lambda children: f"{_first(children, 'dhcpv6.elapsed_time')} ms",
    13: _status,
    16: lambda children: (
        f"enterprise {_first(children, 'dhcpv6.vendorclass.enterprise')}: {_first(children, 'dhcpv6.vendorclass.data')}"
    ),
    23: _shown("dhcpv6.dns_server"),
}
"""By DHCPv6 option; tshark's trees have no value for the others."""


def compare_dhcp6(path: Path, report: Report) -> None:
    """Every DHCPv6 message, out of its relays' envelopes: type, transaction, options."""
    ours = Counter(our_messages(path, DHCP6_PORTS))
    for number, payload, broken, proto in _packets(path, "dhcpv6"):
        where, inside = f"packet {number}", proto
        ours[payload] -= 1
        if ours[payload] < 0 or broken:
            report.notes.append(f"{where}: DHCPv6 for tshark only (cut, tunnelled, broken or another link layer)")
            continue
        message = dhcp6.parse(payload)
        while isinstance(message, dhcp6.Relay):
            inside = next(one for one in inside if _code6(one) == dhcp6.RELAYED)
            inside = inside if inside.find("field[@name='dhcpv6.msgtype']") is not None else inside[-1]
            message = dhcp6.parse(next(value for code, value in message.options if code == dhcp6.RELAYED))
        fields = {one.get("name"): one.get("show") or "" for one in reversed(inside)}
        report.same(where, "header dhcpv6.msgtype", message.kind, int(fields["dhcpv6.msgtype"]))
        report.same(where, "header dhcpv6.xid", message.xid, int(fields["dhcpv6.xid"], 0))
        theirs = [one for one in inside if one.get("name") == "dhcpv6.option.type_str"]
        report.same(where, "codes", [code for code, _ in message.options], [_code6(one) for one in theirs])
        for (code, octets), one in zip(message.options, theirs, strict=False):
            report.same(where, f"octets of option {code}", octets.hex(), (one.get("value") or "")[8:])
            children = [(child.get("name") or "", child.get("show") or "") for child in one.iter("field")][1:]
            if code in EXPECTED6:
                report.same(
                    where, f"value of option {code}", options6.value_text(code, octets), EXPECTED6[code](children)
                )


def _code6(one: ElementTree.Element) -> int:
    return next((int(child.get("show") or "0") for child in one if child.get("name") == "dhcpv6.option.type"), -1)


# --- TFTP and HTTP ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Read:
    """One TFTP read as tshark's packets add up."""

    name: str
    asked: dict[str, str]
    agreed: dict[str, str] | None = None
    blocks: set[int] = field(default_factory=set)
    error: str = ""


def compare_tftp(path: Path, capture: explain.Capture, report: Report) -> None:
    """Every read request, and what came of it."""
    theirs: dict[tuple[str, str], list[Read]] = {}
    for row in rows(
        path, "tftp && !icmp && frame.len == frame.cap_len", "tftp.opcode", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst",
        "udp.srcport", "udp.dstport", "tftp.source_file", "tftp.option.name", "tftp.option.value", "tftp.block",
        "tftp.error.code", "tftp.error.message", "udp.length",
    ):  # fmt: skip
        if not row["tftp.opcode"]:
            continue
        opcode = int(row["tftp.opcode"][0])
        source = ((row["ip.src"] or row["ipv6.src"] or [""])[0], (row["udp.srcport"] or [""])[0])
        target = ((row["ip.dst"] or row["ipv6.dst"] or [""])[0], (row["udp.dstport"] or [""])[0])
        words = dict(zip(row["tftp.option.name"], row["tftp.option.value"], strict=False))
        if opcode == 1:
            made = Read((row["tftp.source_file"] or [""])[0], words)
            known = theirs.setdefault(source, [])
            if not known or (known[-1].name, known[-1].asked) != (made.name, made.asked) or known[-1].error:
                known.append(made)
            continue
        key = source if source in theirs else target
        if key not in theirs:
            continue
        last = theirs[key][-1]
        if opcode == 6:
            last.agreed = words
        elif opcode == 3 and key == target:
            first, size = int(row["tftp.block"][0]), 4 + int((last.agreed or {}).get("blksize", "512"))
            several = max(1, -(-(int(row["udp.length"][0]) - 8) // size))  # in one datagram: the card cuts it later
            last.blocks.update((first + more) & 0xFFFF for more in range(several))
        elif opcode == 5:
            last.error = (row["tftp.error.message"] or [""])[0]
    ours: dict[tuple[str, str], list[Transfer]] = {}
    for machine in capture.machines.values():
        for one in machine.transfers:
            ours.setdefault((one.client, str(one.client_port)), []).append(one)
    report.same(
        "TFTP", "transfers", {key: len(ones) for key, ones in ours.items()}, {k: len(o) for k, o in theirs.items()}
    )
    for key, reads in theirs.items():
        for one, read in zip(ours.get(key, []), reads, strict=False):
            where = f"TFTP {key[0]}:{key[1]}"
            report.same(where, "name", one.name, read.name)
            report.same(where, "asked", one.asked, read.asked)
            report.same(where, "agreed", one.agreed or {}, read.agreed or {})
            if len(read.blocks) < 60_000:
                report.same(where, "blocks", one.blocks, len(read.blocks))
            report.same(where, "error", one.text, printable(read.error, 120))  # explain keeps as much


def compare_http(path: Path, capture: explain.Capture, report: Report) -> None:
    """Every request and status of the machines that explain follows."""
    exchanges = [one for machine in capture.machines.values() for one in machine.exchanges]
    clients = {one.client for one in exchanges}
    asked: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    for row in rows(path, "http.request", "ip.src", "ipv6.src", "tcp.dstport", "http.request.method"):
        if (row["ip.src"] or row["ipv6.src"] or [""])[0] in clients and row["tcp.dstport"]:
            asked.update(row["http.request.method"])
    for row in rows(path, "http.response", "ip.dst", "ipv6.dst", "tcp.srcport", "http.response.code"):
        if (row["ip.dst"] or row["ipv6.dst"] or [""])[0] in clients and row["tcp.srcport"]:
            answered.update(row["http.response.code"])
    booting = ("GET", "HEAD", "POST", "PUT")  # others are no requests in tshark's field
    ours = [one for one in exchanges if one.method in booting]
    report.same("HTTP", "requests", Counter(one.method for one in ours), asked)
    if len(ours) == len(exchanges):
        report.same("HTTP", "statuses", Counter(str(one.status) for one in exchanges if one.status), answered)


# --- one capture ----------------------------------------------------------------------------------------------------


def compare(path: Path) -> Report:
    """One capture. Raises nothing for what is in it."""
    report = Report()
    began = time.perf_counter()
    try:
        with path.open("rb") as file:
            capture = explain.gathered(pcap.read(iter(lambda: file.read(65_536), b"")))
        found = signatures.findings(capture)
    except WireError as error:
        report.notes.append(f"not read: {error}")
        return report
    seconds = time.perf_counter() - began
    boots = sum(one.boots for one in capture.machines.values())
    causes = ", ".join(dict.fromkeys(one.cause for one in found)) or "nothing wrong"
    report.summary = (
        f"{capture.packets} packets, {boots} booting of {len(capture.machines)}: {causes} ({seconds:.2f} s)"
    )
    try:
        compare_dhcp(path, report)
        compare_dhcp6(path, report)
        compare_tftp(path, capture, report)
        compare_http(path, capture, report)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, ElementTree.ParseError, ValueError) as error:
        report.notes.append(f"tshark: {str(error).splitlines()[0]}")
    return report


def files(places: list[str]) -> Iterator[Path]:
    """The captures named or below the directories named."""
    for place in map(Path, places):
        if place.is_dir():
            yield from sorted(one for one in place.rglob("*") if one.suffix.lower() in ENDINGS and one.is_file())
        else:
            yield place


def main() -> int:
    """Compare, print, and say by the exit status whether anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("places", nargs="+", metavar="FILE-OR-DIRECTORY")
    parser.add_argument("-q", "--quiet", action="store_true", help="only differences and the total")
    asked = parser.parse_args()
    total: Counter[str] = Counter()
    differing = captures = 0
    for path in files(asked.places):
        report = compare(path)
        captures += 1
        total += report.compared
        differing += bool(report.differences)
        if report.differences or not asked.quiet:
            print(f"{path}: {report.summary}")
            for line in [*report.differences, *([] if asked.quiet else report.notes)]:
                print(f"    {line}")
    counted = ", ".join(f"{number} {what}" for what, number in sorted(total.items()))
    print(f"{captures} captures, {differing} with differences; compared: {counted or 'nothing'}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
