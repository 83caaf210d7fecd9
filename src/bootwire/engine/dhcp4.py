"""ProxyDHCP offers and boot server answers, from a client's message and what it is to be told (PXE 2.1, RFC 2131).

No state and no addresses to lease: `yiaddr` is always 0.0.0.0, and there is no DHCPNAK. Where an answer may name the
server, it does so in every place that some client looks: siaddr, sname, options 54 and 66; the boot file likewise in
the header and in option 67.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import BROADCAST, Message, Pxe
from bootwire.wire.reader import WireError

Recipe = Literal["direct", "binl", "menu", "ipxe", "http-boot", "raspberry"]

MULTICAST = "224.0.1.2"
"""Where machines that discover boot servers by multicast ask (tag 7): the address that Intel's PXE PDK has used."""

MENU_TYPE = 0x8000
"""The boot server type of our one-item menu: the first of the vendor range (PXE 2.1; dnsmasq counts from here, too)."""
CREDENTIALS = 0x8000
"""Layer bit of a boot item: the client wants the file signed (PXE 2.1, BIS), which we cannot do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What to tell a client.

    ours       our IPv4 on the path to it, dotted
    boot_file  a TFTP name or a URL, ASCII, no NUL; b"" for a Raspberry Pi
    vendor     the vendor class to answer with (`Client.vendor`)
    menu       of the recipe "menu": (boot server type, text), type 0 boots locally; the first is the default
    prompt     of it: seconds (0 takes the default at once, 255 waits for ever), text
    discovery  of it: how the boot server is looked for
    prefix     PXELINUX's path prefix, a URL that ends in "/"; "" for none
    """

    recipe: Recipe
    ours: str
    boot_file: bytes
    vendor: bytes
    menu: tuple[tuple[int, bytes], ...] = ()
    prompt: tuple[int, bytes] = (0, b"Network boot")
    discovery: Literal["unicast", "broadcast", "multicast"] = "unicast"
    prefix: bytes = b""


def offer(request: Message, answer: Answer) -> Message | None:
    """The ProxyDHCP OFFER to a DISCOVER; None where no offer would fit what the client can take.

    The broadcast flag is always set: yiaddr is 0, so there is nothing a relay or a stack could send unicast to.
    """
    return _fit(_reply(request, answer, dhcp4.OFFER, BROADCAST, "0.0.0.0", _vendor_options(answer)), request)


def acknowledge(request: Message, answer: Answer) -> Message | None:
    """The boot server's ACK on port 4011, or to a broadcast boot server discovery; None where none would fit.

    A boot item (43.71) is echoed: iPXE takes only the item it asked for (src/net/udp/dhcp.c, dhcp_pxebs_rx).
    """
    item = boot_item(request)
    vendor = dhcp4.emit_pxe(Pxe(item=item)) if item else b""
    flags = BROADCAST if request.ciaddr == "0.0.0.0" else request.flags & BROADCAST
    return _fit(_reply(request, answer, dhcp4.ACK, flags, request.ciaddr, vendor), request)


def boot_item(request: Message) -> tuple[int, int] | None:
    """(boot server type, layer) of a boot server discovery, None if the message is none."""
    value = request.option(dhcp4.VENDOR_SPECIFIC)
    if value is None:
        return None
    try:
        return dhcp4.parse_pxe(value).item
    except WireError:
        return None


# --- helpers ----------------------------------------------------------------------------------------------------

_PREFIX = 210  # RFC 5071 section 5: where PXELINUX finds everything else

_MAX_OCTETS = 1472
"""UDP payload: EDK2 drops longer replies (Dhcp4Io.c), and it is what Ethernet carries in one piece."""

# Take the file, no discovery; and the prompt without which old PXE ROMs stop with PXE-E74 (dnsmasq rfc2131.c).
_DIRECT = dhcp4.emit_pxe(Pxe(control=dhcp4.USE_BOOT_FILE, prompt=(0, b"PXE")))
# Raspberry Pi boot ROMs look for this menu text, type 0; tags in the order dnsmasq sends them, as Pi 3 and 4 know it.
_RASPBERRY = b"\x06\x01\x03" + b"\x0a\x04\0PXE" + b"\x09\x14\0\0\x11Raspberry Pi Boot" + b"\xff"


def _vendor_options(answer: Answer) -> bytes:
    """Option 43 of an offer."""
    match answer.recipe:
        case "direct":
            return _DIRECT
        case "raspberry":
            return _RASPBERRY
        case "menu":
            menu = answer.menu or ((MENU_TYPE, b"Network boot"), (0, b"Boot from local disk"))
            types = sorted({kind for kind, _ in menu if kind})
            # Unicast to the list alone, and one address in it: EDK2 walks longer lists wrongly (PxeBcBoot.c).
            unicast = answer.discovery == "unicast"
            return dhcp4.emit_pxe(
                Pxe(
                    control=_CONTROL[answer.discovery],
                    multicast=MULTICAST if answer.discovery == "multicast" else "",
                    servers=tuple((kind, (answer.ours,)) for kind in types) if unicast else (),
                    menu=menu,
                    prompt=answer.prompt,
                )
            )
        case "binl" | "ipxe" | "http-boot":
            return b""


def _reply(request: Message, answer: Answer, kind: int, flags: int, ciaddr: str, vendor_options: bytes) -> Message:
    """Header and options that offers and acknowledgements share."""
    ours = answer.ours.encode()
    file = answer.boot_file
    return Message(
        op=dhcp4.REPLY,
        htype=request.htype,
        hlen=request.hlen,
        hops=0,
        xid=request.xid,
        secs=0,
        flags=flags,
        ciaddr=ciaddr,
        yiaddr="0.0.0.0",
        siaddr=answer.ours,
        giaddr=request.giaddr,
        chaddr=request.chaddr,
        sname=ours,
        file=file if len(file) <= 127 else b"",
        options=dhcp4.arrange(
            (
                (dhcp4.MESSAGE_TYPE, bytes((kind,))),
                (dhcp4.SERVER_ID, dhcp4.packed(answer.ours)),
                (dhcp4.VENDOR_CLASS, answer.vendor),
                (dhcp4.MACHINE_ID, request.option(dhcp4.MACHINE_ID) or b""),
                (dhcp4.VENDOR_SPECIFIC, vendor_options),
                # The NUL is inside: EDK2 writes one behind whatever it gets, old ROMs read on to the next.
                (dhcp4.TFTP_SERVER, ours + b"\0"),
                (dhcp4.BOOT_FILE, file + b"\0" if file else b""),
                (_PREFIX, answer.prefix),
                (dhcp4.RELAY_AGENT, request.option(dhcp4.RELAY_AGENT) or b""),
            )
        ),
    )


_CONTROL = {  # discovery control bits (PXE 2.1, tag 6): how the boot server may be looked for
    "unicast": dhcp4.NO_BROADCAST | dhcp4.NO_MULTICAST,
    "broadcast": dhcp4.NO_MULTICAST,
    "multicast": dhcp4.NO_BROADCAST,
}

_SPARE = (dhcp4.TFTP_SERVER, dhcp4.BOOT_FILE, dhcp4.MACHINE_ID)
"""What a reply can do without, in the order in which it does: the header still has server and file."""


def _fit(reply: Message, request: Message) -> Message | None:
    """`reply` within what the client (option 57) and Ethernet take."""
    limit = min(request.max_octets, _MAX_OCTETS)
    for code in _SPARE:
        if _size(reply) <= limit:
            return reply
        if code != dhcp4.BOOT_FILE or reply.file:
            reply = replace(reply, options=tuple(pair for pair in reply.options if pair[0] != code))
    return reply if _size(reply) <= limit else None


def _size(message: Message) -> int:
    """Octets of `emit(message)` before padding: header, cookie, options (split at 255), END."""
    return 241 + sum(len(value) + 2 * -(-len(value) // 255) for _, value in message.options)
