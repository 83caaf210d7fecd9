"""What a capture can show to be wrong, as data: id, how bad, what is said, what to do, and where that is known from.

Where the live rules (`observe.rules`) know the same cause, it has the same id here; the words differ, since a capture
shows other servers' doings as well as ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
ORDER: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Cause:
    """because: with the finding's values in braces; fix: what to change, most promising first."""

    id: str
    severity: Severity
    because: str
    fix: str
    source: str


_TABLE = """
nothing-answers | error | It asked (DISCOVER, {count} x in {seconds} s) and nobody offered anything: no DHCP server
    heard it, or none answers it.
  | Look at cable, VLAN and link (spanning tree without PortFast costs 30 s); start the network's DHCP server;
    behind a router, give it a DHCP relay.
  | PXE 2.1 section 2.2.1; BIOS shows PXE-E51, UEFI PXE-E18
no-boot-server | error | {server} offered an address, and nobody offered anything to boot.
  | Run a boot server on this network (bootwire boot KERNEL), or name one in the DHCP server: next-server and
    filename. Behind a relay, let it forward to the boot server, too.
  | BIOS and UEFI show PXE-E53
no-dhcp-server | error | {server} offered something to boot, but no DHCP server offered an address.
  | Start the network's DHCP server; look whether its pool is used up, or whether it refuses this MAC.
  | PXE 2.1 section 2.2; BIOS shows PXE-E52, UEFI PXE-E18
second-server | warning | {count} servers want to boot it: {servers}. Which one wins depends on the firmware: EDK2
    and most BIOS ROMs take the first of the best kind, iPXE the last.
  | Leave network booting on in one of them only, or keep them on networks of their own.
  | PXE 2.1 section 2.2.3; EDK2 PxeBcSelectDhcp4Offer
vendor-class-alone | error | The DHCP server {server} says that it is a PXE server itself (option 60), but offers
    nothing to boot: firmware goes to its port 4011 instead of to the boot server.
  | Remove option 60 (PXEClient) from the DHCP server: it is left over from WDS, and only right where both run on
    one host.
  | Microsoft KB259670; EDK2: DhcpBinl goes before ProxyBinl; BIOS shows PXE-E55 or PXE-E11
offers-ignored | error | Both an address ({server}) and something to boot ({proxy}) were offered, {count} times, and
    it took neither: this firmware cannot put the two together, or a switch dropped one.
  | Name the boot server in the DHCP server (next-server, filename); or choose HTTP Boot in its setup; or trust the
    boot server's port in DHCP snooping.
  | UDK2014 (Dell, HP DL380 Gen9): edk2#6944, danderson/netboot#43
proxy-ignored | error | It took the address of {server} and never went to the boot server {proxy}, whose offer was
    there in time.
  | Look at its screen (a key may be awaited); trust the boot server's switch port in DHCP snooping; or name the
    boot server in the DHCP server.
  | BIOS shows PXE-E53, UEFI PXE-E16
proxy-late | error | The offer of the boot server {proxy} came {seconds} s after the question, when it had made its
    choice already.
  | Find out why the boot server is slow: a delay in its settings, or a service that it has to ask first.
  | EDK2 waits 4 s for a proxy, iPXE 2 s (edk2 Dhcp4Dxe, ipxe dhcp.c)
bad-offer | error | The offer of {server} is dropped by EDK2: {why}.
  | Correct that server's configuration, or update it.
  | EDK2 Dhcp4Option.c, Dhcp4Io.c
offer-without-mask | error | The offer of {server} has no subnet mask (option 1): EDK2 ends the boot with PXE-E21.
  | Let the DHCP server send option 1.
  | EDK2 Dhcp4Impl.c
offer-without-server | error | The offer of {server} has no server identifier (option 54), so it cannot be
    requested.
  | Let that server send option 54 with its own address.
  | RFC 2131 table 3; EDK2 PxeBcSelectDhcp4Offer
menu-broken | error | {server} sends PXE options (43) without a menu and without "use the boot file" (6, bit 3).
  | Send 43 = 06:01:08 with a boot file, or a whole menu with prompt and boot servers.
  | PXE 2.1 section 2.2.1; BIOS shows PXE-E74, UEFI PXE-E21
pxe-unanswered | error | It asked {server} on port 4011 {count} times and got no answer.
  | Let UDP port 4011 through the firewall of {server}; if no boot server listens there, remove option 60
    (PXEClient) from its offer: a file that it names is then fetched at once.
  | PXE 2.1 section 2.2.3; BIOS shows PXE-E55, UEFI PXE-E16
pxe-answer-lost | error | {server} answers it on port 4011, and it asks on ({count} times): the answers do not
    arrive, or it cannot use them.
  | Let UDP from port 4011 through; look whether the answer comes from the address it asked, and holds server and
    file.
  | PXE 2.1 section 2.2.3: asked at 1, 2, 3, 4 s
pxe-wrong-port | warning | {server} answers port 4011 from port {port}: iPXE drops that.
  | Let the boot server answer from the port that was asked.
  | ipxe src/net/udp/dhcp.c, dhcp_proxy_rx
relay-drops | error | Through relay {relay} it was offered something, and it asks on: the relay seems not to hand
    the offers on.
  | Let the relay forward to every server, and pass answers without an address (yiaddr 0), by broadcast where it
    cannot do otherwise.
  | RFC 1542 section 4.1
relay-not-to-us | error | It is behind relay {relay}, and only {server} answers, which offers nothing to boot: the
    relay does not forward to the boot server, or what that answers does not come back to it.
  | Add the boot server's address to the relay (ip helper-address) beside the DHCP server's; or name boot server and
    file in the DHCP server.
  | RFC 1542 section 4.1
lease-refused | error | {server} refuses the address that it asks for (NAK).
  | Look for a second DHCP server with another range, and for an old lease of this MAC.
  | RFC 2131 section 4.3.2; UEFI shows PXE-E07
duplicate-address | error | {address} is claimed by {macs}: two hosts have one address.
  | Take the address out of the DHCP server's range, or give one of the hosts another.
  | RFC 5227
address-declined | error | It declines {address} at once ({why}): its own firmware does not take it, and nobody was
    asked whether somebody else has it.
  | Give it an address that does not end in .0 (EDK2 before October 2016 takes none) with a mask wider than /31;
    neither it nor its router may be the first or last address of the network.
  | tianocore/edk2#6669, #7303, #8557: "Lease is denied upon entering bound"; UEFI shows PXE-E09
ipv6-refused | error | {server} refuses it over IPv6 ({why}), {count} times.
  | Give the DHCPv6 server a free range for this link (a stateless one has no addresses, and EDK2's PXE wants one even
    where routers say otherwise); count two for each machine, which asks with a second IAID for PXE; see its leases.
  | RFC 8415 section 18.3; tianocore/edk2#9832
ipv6-no-file | error | {server} gave it an IPv6 address, and nobody offered anything to boot over IPv6 (option 59).
  | Set the boot file URL in the DHCPv6 server: tftp://[ADDRESS]/NAME or http://…; or let it boot over IPv4.
  | RFC 5970 section 3.1; UEFI shows PXE-E16
dhcp-file-wins | warning | The DHCP server {server} names a boot file itself ({name}): iPXE takes that one, whatever
    {proxy} offers.
  | Remove filename and next-server from the DHCP server, or let it name what {proxy} offers.
  | ipxe src/net/udp/dhcp.c: the DHCP server's settings come before the proxy's
no-next-server | error | {server} offers the file {name} without a server to get it from (siaddr 0.0.0.0).
  | Set next-server in that server's configuration.
  | firmware reads siaddr; iPXE asks port 4011 again and again without it
ipxe-without-features | warning | Its iPXE cannot do {missing}: it is a network card's or hypervisor's own build.
  | Chain-load a full iPXE (undionly.kpxe, snponly.efi); Bootwire does that by itself.
  | ipxe src/include/ipxe/features.h, option 175
loader-loop | error | It fetched the loader {name} {count} times, and each time began at the beginning: the loader
    is handed out to the loader.
  | Answer user class iPXE (option 77) with the script's URL instead of the loader.
  | ipxe.org/howto/chainloading
wrong-architecture | error | {name} is for {found}, but this machine is {client}: it cannot run.
  | Offer the loader of its own architecture, by option 93.
  | RFC 4578 section 2.1; UEFI LoadImage: Unsupported
loader-refused | error | It fetched the loader {name} whole and never showed a sign of it: Secure Boot refuses an
    unsigned loader, or the loader hangs.
  | Switch Secure Boot off in its setup, or serve signed loaders (shim); try another build of the loader.
  | EDK2 PxeBcBoot.c: nothing is said on the wire; UEFI 2.10 section 32.5
shim-refused | warning | shim asked for its MOK manager ({name}): it did not accept the signature of what it was to
    start.
  | Serve a GRUB or kernel signed by the same vendor as shim, or enrol its key.
  | shim netboot.c, shim.c
file-missing | error | {server} does not have {name}: {text}
  | Look at the name, its capitals and its directory, and at the server's root directory.
  | RFC 1350 section 5, error 1; BIOS shows PXE-T01 and PXE-E3B, UEFI PXE-E23
file-forbidden | error | {server} refuses {name}: {text}
  | Look at the file's permissions, and whether the name leaves the server's directory or begins with a slash.
  | RFC 1350 section 5, error 2; BIOS shows PXE-T02 and PXE-E3C
tftp-server-error | error | {server} ended the transfer of {name}: {text}
  | Look at that server's log of the same second.
  | RFC 1350 section 5; BIOS shows PXE-E36, UEFI PXE-E23
name-garbage | warning | It asks for {name}: the name ends in octets that are no text, because the offer's option 67
    was not closed by a NUL.
  | Let the server end option 67 with a NUL, or strip such octets from names.
  | netboot.xyz: tftp-filename-issues; old Lenovo, Jetway, Kontron ROMs
tftp-replies-lost | error | It asked {server} for {name} {times}, and no answer is in the capture: TFTP is not
    running there, is blocked, or the answers take another way.
  | Start TFTP there; let UDP port 69 and the ports that answers come from through every firewall (they come from a
    new port); on a host with several addresses, answer from the one asked.
  | RFC 1350 section 4; BIOS shows PXE-E32, UEFI PXE-E18
tftp-not-heard | error | {server} answers its request for {name}, and it asks again ({count} times): the answers do
    not reach it.
  | Let UDP from all ports of {server} through to it; look whether the answer comes from the address that was asked
    ({from}).
  | RFC 1350 section 4; BIOS shows PXE-E32, UEFI PXE-E18
big-blocks-lost | error | Blocks of {size} octets do not reach it: {name} stays at block {block}, sent {count}
    times.
  | Look for a link with a small MTU between the two (tunnel, VXLAN, PPPoE), or give a smaller block size (1408,
    1024, 512).
  | RFC 2348; dnsmasq tftp.c
fragments-lost | error | From {server} come packets in fragments, and of {count} datagrams pieces are missing.
  | Give a smaller TFTP block size, so that no packet is cut into pieces; let fragments through the firewall.
  | RFC 791 section 3.2; many ROMs cannot put fragments together
needs-fragmenting | error | A router ({router}) drops packets that are too big for its next link{mtu}.
  | Give a smaller TFTP block size, and clear DF on TFTP packets.
  | RFC 1191
ack-storm | warning | Each block of {name} is sent {times} times: every late acknowledgement sends a block again
    (Sorcerer's Apprentice).
  | Use a TFTP server that does not answer repeated acknowledgements.
  | RFC 1123 section 4.2.3.1
tftp-broke-off | error | {name} breaks off after {octets} octets (block {block}), without a word from either side.
  | Look at link, speed and duplex; let the port of the transfer stay open as long as it lasts.
  | BIOS shows PXE-E35, UEFI PXE-E18
block-wrap | warning | {name} breaks off where block numbers begin again (65,535 blocks of {size} octets).
  | Give a bigger block size, or fetch big files over HTTP.
  | RFC 1350; block numbers have 16 bits
tsize-missing | error | {server} does not say the size of {name}, although it was asked to (tsize): EDK2 ends with
    PXE-E99.
  | Use a TFTP server that knows tsize.
  | RFC 2349; EDK2 PxeBcMtftp.c
options-exceeded | error | {server} agrees to options that were not asked for, or to more than was asked: {what}.
  | Use a TFTP server that keeps to RFC 2347.
  | RFC 2347, 2348; BIOS shows PXE-E3F
tftp-client-refused | error | It gave up the transfer of {name} itself: {text}
  | Give it a smaller loader (a BIOS takes about 500 KB), and one for its own kind of firmware.
  | BIOS shows PXE-E79, UEFI PXE-E05
loader-too-big | error | It asked how big {name} is ({octets} octets), and did not fetch it: a BIOS takes about 500 KB.
  | Give it a smaller loader (undionly.kpxe, pxelinux.0), and one for its own kind of firmware.
  | Intel Boot Agent; BIOS shows PXE-E79
size-probe | info | It asked for the size of {name} first and broke that transfer off: normal.
  | Nothing to do.
  | EDK2 PxeBcMtftp.c, Intel Boot Agent
kernel-refused | error | It fetched {name} whole {count} times in one boot: its loader does not start that kernel.
  | Look whether it is a kernel, whole, and for this machine's processor; whether Secure Boot refuses an unsigned one;
    whether there is memory for it and its initrds.
  | iPXE: Exec format error, Access denied
script-missing | error | {server} does not have the script {name} ({text}).
  | Look at the address that the loader was given.
  | RFC 9110 section 15.5
kernel-missing | error | {server} does not have the kernel {name} ({text}).
  | Look at the kernel's name in the script.
  | RFC 9110 section 15.5
initrd-missing | error | {server} does not have the initrd {name} ({text}).
  | Look at the initrd's name in the script.
  | RFC 9110 section 15.5
http-missing | error | {server} does not have {name} ({text}).
  | Look at the name, its capitals and its directory.
  | RFC 9110 section 15.5
http-error | error | {server} fails on {name} with status {text}.
  | Look at that server's log of the same second.
  | RFC 9110 section 15.6
http-redirect | error | {server} sends UEFI HTTP Boot elsewhere for {name} ({text}): it never follows.
  | Name the last address in the offer.
  | edk2#9714
http-wrong-type | error | {server} says that {name} is {text}: UEFI HTTP Boot knows application/efi,
    application/vnd.efi-iso and application/vnd.efi-img, or the endings .efi, .iso, .img.
  | Set Content-Type: application/efi (exactly, without a charset), or give the file the ending .efi.
  | EDK2 HttpBootDxe
http-no-length | error | {server} does not say how long {name} is (no Content-Length).
  | Let the server send Content-Length, not chunks.
  | EDK2 HttpBootDxe: Could not retrieve NBP file size from HTTP server
http-blocked | error | {server} does not take connections on port {port}: {count} attempts without an answer.
  | Let TCP port {port} through the firewall; look whether the HTTP server runs.
  | RFC 9293 section 3.8.1; iPXE: Connection timed out
http-refused | error | {server} refuses connections on port {port}: nothing listens there.
  | Start the HTTP server, or correct the port in the address.
  | RFC 9293 section 3.5.2
http-broke-off | error | {name} breaks off after {octets} of {length} octets.
  | Look at link, speed and duplex, and at that server's log.
  | RFC 9112 section 8
http-damaged | error | What {server} answers on {name} is no HTTP: {text}.
  | Look whether an HTTP server listens on that port.
  | RFC 9112
no-uri | error | It wants HTTP Boot, and {server} offers {name}, which is no URL.
  | Offer an address that begins with http:// to vendor class HTTPClient.
  | EDK2 HttpBootDhcp4.c
dns-failing | error | The name {name} does not resolve: {text}.
  | Correct the name, or put an address into the URL.
  | RFC 1035 section 4.1.1; UEFI: DNS resolution failed
dns-unanswered | error | Nobody answers its question for the name {name}.
  | Look at the name servers (option 6) that DHCP gives, or put an address into the URL.
  | RFC 1035; UEFI: Could not retrieve the host address from DNS server
port-closed | error | {server} says that nothing listens on its UDP port {port}.
  | Start {service} there.
  | RFC 792: port unreachable; UEFI shows PXE-E22
no-route | error | {router} has no route to {destination}.
  | Look at router (option 3) and subnet mask (option 1) that DHCP gives, and at the routing.
  | RFC 792: net or host unreachable
prohibited | error | {router} refuses what goes to {destination}{port}, in the name of a firewall.
  | Let that through, on {router} and on {destination}.
  | RFC 1812 section 5.2.7.1: administratively prohibited
no-router | warning | {server} is on another network, and DHCP gives no router (option 3).
  | Let the DHCP server send option 3.
  | RFC 2132 section 3.5
arp-unanswered | error | It asks {count} times who has {address}, and nobody says so.
  | Look whether that address (server or router) is on this network, and switched on.
  | RFC 826; BIOS shows PXE-E11
answer-too-big | warning | The answer of {server} has {octets} octets, more than it takes ({limit}).
  | Send fewer options.
  | RFC 2132 section 9.10; EDK2 takes 1472
arch-disagrees | info | Options 60 and 93 name different architectures.
  | Nothing to do: option 93 counts.
  | RFC 4578 section 2.1
capture-cut | info | {count} packets were cut by the capture, so that files and long answers are not seen whole.
  | Capture with tcpdump -s 0.
  | tcpdump(8)
capture-damaged | warning | The file ends in the middle: {why}.
  | Nothing to do: everything before is explained.
  | libpcap's file formats
bad-dhcp | warning | {count} DHCP messages cannot be read; the first, from {server}: {why}.
  | Look at what sends them.
  | RFC 2131 section 2
"""


def read(table: str) -> Mapping[str, Cause]:
    """A table of causes: each is a line and what is indented below it: id | severity | because | fix | source."""
    found: dict[str, Cause] = {}
    for block in re.split(r"\n(?=\S)", table.strip()):
        ident, severity, because, fix, source = (part.strip() for part in " ".join(block.split()).split(" | "))
        level = next(one for one in ORDER if one == severity)
        found[ident] = Cause(ident, level, because, fix, source)
    return found


CAUSES: Mapping[str, Cause] = read(_TABLE)
