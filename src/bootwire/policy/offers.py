"""What firmware sees in an offer: PXE's tags in option 43 (PXE 2.1 section 2.2), and the order in which EDK2 chooses.

Shared by the firmware personas, which act on it, and by what explains captures.
"""

from __future__ import annotations

from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message, Pxe
from bootwire.wire.reader import WireError


def is_pxe(message: Message) -> bool:
    """Option 60 begins with "PXEClient"."""
    return (message.option(dhcp4.VENDOR_CLASS) or b"").startswith(b"PXEClient")


def vendor(message: Message) -> Pxe:
    """Option 43 as PXE reads it; empty where there is none or it cannot be read."""
    try:
        return dhcp4.parse_pxe(message.option(dhcp4.VENDOR_SPECIFIC) or b"")
    except WireError:
        return Pxe()


def tags(message: Message) -> frozenset[int]:
    """The PXE tags in option 43; none where it cannot be read."""
    try:
        return frozenset(code for code, _ in dhcp4.sub_options(message.option(dhcp4.VENDOR_SPECIFIC) or b""))
    except WireError:
        return frozenset()


def boots_directly(message: Message) -> bool:
    """Discovery control bit 3 and a boot file: no prompt, no menu, no boot server (PXE 2.1, tag 6)."""
    return bool((vendor(message).control or 0) & dhcp4.USE_BOOT_FILE) and bool(message.boot_file)


def lacks_server(message: Message) -> bool:
    """A boot file that is no URL, and neither siaddr nor option 66 says where it is."""
    name = message.boot_file
    nowhere = message.siaddr == "0.0.0.0" and not message.option(dhcp4.TFTP_SERVER)
    return bool(name) and b"://" not in name and nowhere


def kind(message: Message) -> str:
    """The class of an offer as PxeBcParseDhcp4Packet finds it; "" for one it drops."""
    if not message.option(dhcp4.MESSAGE_TYPE):
        return "Bootp" if message.boot_file else ""
    proxied = message.yiaddr.startswith("0.")
    if not is_pxe(message):
        return "" if proxied else "DhcpOnly"
    found = tags(message)
    sort = "Pxe10" if found & {6, 7, 8, 9, 10} else "Wfm11a" if found >= {1, 2, 3, 4, 5} else "Binl"
    return ("Proxy" if proxied else "Dhcp") + sort


ORDER = (  # PxeBcSelectDhcp4Offer
    ("DhcpPxe10", ""), ("DhcpWfm11a", ""), ("DhcpOnly", "ProxyPxe10"), ("DhcpOnly", "ProxyWfm11a"),
    ("DhcpBinl", ""), ("DhcpOnly", "ProxyBinl"), ("DhcpOnly", ""), ("Bootp", ""),
)  # fmt: skip
