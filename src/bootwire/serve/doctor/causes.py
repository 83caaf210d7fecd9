"""What only the doctor can see to be wrong, in the same form as what a capture shows (`observe.explain.causes`).

Where a capture knows the same cause, it has the same id here, and its words unless the doctor knows more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bootwire.observe.explain import causes
from bootwire.observe.explain.causes import Cause
from bootwire.observe.explain.signatures import Finding
from bootwire.wire.text import printable

_TABLE = """
did-not-boot | error | It {ends}. Its screen: {screen}
  | Record it (--pcap FILE --as NAME) and read it with bootwire explain -v FILE.
  | the firmware's persona
no-address-for-hosts | error | A plain host got no address: {trouble}.
  | Start the network's DHCP server; look whether its pool is used up, or whether it refuses strangers.
  | RFC 2131 section 4.4.1
loader-not-nbp | warning | {name} ({octets} octets) begins like no network boot program: a BIOS jumps to its first
    octet, whatever that is.
  | Offer a loader for BIOS (undionly.kpxe, pxelinux.0) to architecture 0 (option 93).
  | PXE 2.1 section 3.3.5: entry at 0000:7C00
loader-too-big | warning | {name} has {octets} octets; a BIOS has room for {limit} at the most, and many ROMs for less.
  | Offer a smaller build: undionly.kpxe instead of ipxe.pxe with every driver.
  | PXE 2.1 section 3.3.5; BIOS shows PXE-E79
loader-not-efi | error | {name} ({octets} octets) is {what}: UEFI refuses to load it.
  | Offer an .efi file of its architecture, by option 93.
  | UEFI 2.10 section 2.1.1; LoadImage: Unsupported
secure-boot-unsigned | warning | {name} is not signed: machines with Secure Boot on refuse it (EFI_ACCESS_DENIED), and
    say no more than that.
  | Serve a signed loader (shim with a signed GRUB), or switch Secure Boot off in the machines' setup.
  | UEFI 2.10 section 32.5
secure-boot-unsigned-ipxe | info | {name} is iPXE and not signed, as its usual builds are: machines with Secure Boot on
    refuse it (EFI_ACCESS_DENIED).
  | For such machines serve a signed loader (shim with a signed GRUB), or switch Secure Boot off in their setup.
  | UEFI 2.10 section 32.5
secure-boot-own-key | warning | {name} is signed, and not by Microsoft ({signers}): only machines that have that key
    enrolled start it with Secure Boot on.
  | Serve shim as the distribution signed it, or enrol the key in every machine.
  | UEFI 2.10 section 32.5
secure-boot-one-ca | info | {name} is signed by {signers} alone: with Secure Boot on, {lacking} refuse it.
  | Serve a shim that bears both signatures, where there is one.
  | Microsoft: Secure Boot certificates of 2011 expire in 2026
secure-boot-no-sbat | warning | {name} is signed and has no SBAT section: current shim and GRUB revocations refuse it.
  | Update shim.
  | github.com/rhboot/shim SBAT.md
tftp-no-service | error | {server} says that nothing listens on its UDP port 69: {name} cannot be had.
  | Start a TFTP server there, or name the right one (next-server, siaddr) in the DHCP or boot server.
  | RFC 792: port unreachable; UEFI shows PXE-E22
tftp-blocked | error | {name} cannot be had from {server} over TFTP: {trouble}.
  | {do}
  | RFC 1350 section 4; BIOS shows PXE-E32, UEFI PXE-E18
tftp-broken | error | {name} does not come whole from {server} over TFTP: {trouble}.
  | Look at that server's log of the same second.
  | RFC 1350
tftp-large-blocks | error | Blocks of 512 octets come from {server}, blocks of {size} do not: {trouble}. A link or
    tunnel between has a smaller MTU, or fragments are dropped.
  | Look at the MTU of every link and tunnel between; where it must stay, let the server offer no more than what fits
    (dnsmasq: tftp-no-blocksize).
  | RFC 2348; PXE-E32
tftp-large-blocks-fragments | warning | Blocks of up to 1468 octets come from {server}, blocks of {size}, which go in
    fragments, do not: {trouble}.
  | Nothing, unless a firmware asks for blocks of that size: fragments are dropped between, or the server sends none.
  | RFC 2348; PXE-E32
tftp-windows | warning | Single blocks come from {server}, windows of {size} do not: {trouble}.
  | Something between drops bursts (a small buffer, a rate limit), or its windows are broken.
  | RFC 7440
http-blocked | error | {server} does not take connections on port {port}: {trouble}.
  | {do}
  | RFC 9293 section 3.8.1; RFC 1812 section 5.2.7.1; iPXE: Connection timed out
http-broke-off | error | {name} breaks off after {octets} of {length} octets ({trouble}).
  | Look at link, speed and duplex, and at that server's log.
  | RFC 9112 section 8
http-no-length | warning | {server} does not say how long {name} is (no Content-Length): UEFI HTTP Boot refuses that.
  | Let the server send Content-Length, not chunks.
  | EDK2 HttpBootDxe: Could not retrieve NBP file size from HTTP server
http-no-ranges | info | {server} does not send parts of {name}: a broken transfer begins again, and disk images cannot
    be booted over HTTP.
  | Nothing, unless images are booted so.
  | RFC 9110 section 14
http-for-the-machine | info | {name} came for the machine that was told of it, and not for another ({text}).
  | Nothing, if that server binds addresses to machines, as Bootwire does.
  | RFC 9110 section 15.5
http-slow | warning | {name} comes at {rate} MB/s: {octets} octets in {seconds} s.
  | Look at speed and duplex of every link on the way, at that server's disk, and at what else it serves.
  | measured here
http-unreachable | error | There is no way to {server} port {port}: {trouble}.
  | Look at router (option 3) and subnet mask (option 1) that DHCP gives, and whether {server} is switched on.
  | RFC 792; RFC 826
slow-network | warning | A round trip to {address} ({roles}) takes {median} ms (from {least} to {most}): 1 MiB over
    TFTP, a block at a time, takes {seconds} s.
  | Put a boot server near the machines, or let it serve loaders over HTTP or in windows; look what fills the links
    between.
  | RFC 1350: one block a round trip; measured here
packet-loss | warning | {lost} of {sent} echoes to {address} ({roles}) were not answered ({share} %).
  | Look at duplex and error counters of every port on the way, at a bad cable, and at what fills the links.
  | RFC 792; each lost TFTP packet costs a client 1 to 4 s
small-mtu | warning | Packets of at most {passes} octets pass to {address} ({roles}) and back whole; the card takes
    {ours}{by}.
  | Give every host of the network that MTU (option 26), find the tunnel or link that is smaller, or give TFTP a block
    size of at most {block}.
  | RFC 1191; RFC 2348
mtu-of-card | info | The MTU here is {ours} octets, less than Ethernet's 1500.
  | Nothing, if all hosts of the network agree on it.
  | RFC 894; option 26
behind-relay | info | Answers of {servers} come through the relay {relay}{port}.
  | Nothing to do: the boot server must be among those that the relay forwards to.
  | RFC 1542 section 4.1
behind-snooping-switch | info | Answers of {servers} still hold the option 82 of a switch{port}.
  | Nothing to do: a rule may look at it (circuit-id, remote-id), and a boot server behind that switch must be on a
    port that it trusts (DHCP snooping).
  | RFC 3046 section 2.1: what added it is to take it out again
router-dead | error | The router {router} that DHCP gives does not answer ARP: nothing beyond this network can be
    reached{beyond}.
  | Switch it on, or correct option 3 of the DHCP server.
  | RFC 826; RFC 2132 section 3.5
server-dead | error | {address} ({roles}) does not answer ARP: nobody has that address here.
  | Switch that machine on, or correct the address in the DHCP server (next-server, siaddr, option 6 or 42).
  | RFC 826
no-route | error | {router} has no route to {destination} ({roles}): {because}.
  | Look at the routing of {router}, and at router (option 3) and subnet mask (option 1) that DHCP gives.
  | RFC 792: net or host unreachable
no-router | error | {server} ({roles}) is on another network than {address}, and DHCP gives no router (option 3).
  | Let the DHCP server send option 3, or option 121.
  | RFC 2132 section 3.5; RFC 3442
second-dhcp-server | warning | {count} DHCP servers offer addresses, and disagree on {what}: {servers}. Machines take
    the first that answers.
  | Switch off the one that does not belong here, or let both say the same.
  | RFC 2131 section 4.4.1
dns-server-silent | warning | The name server {server} that DHCP gives does not answer.
  | Start it, let UDP and TCP port 53 through to it, or take it out of option 6.
  | RFC 1035; RFC 2132 section 3.8
dns-server-needed | error | The name server {server} that DHCP gives does not answer, and addresses of boot files hold
    names ({names}).
  | Start it, let UDP and TCP port 53 through to it, or take it out of option 6; or put addresses into the URLs.
  | RFC 1035; UEFI: Could not retrieve the host address from DNS server
dns-differs | warning | The name servers disagree on {name}: {answers}.
  | Let all servers of option 6 know the same names, or hand out those only that know the boot server's.
  | RFC 1035: firmware asks one of them and believes it
clock-skew | warning | The clock of {server} ({kind}) is {offset} {direction} the one here: certificates count as
    not valid yet or not any more, and signed addresses as expired, where such clocks meet.
  | Set both by the same time server (NTP); a machine's own clock is set in its firmware's setup.
  | RFC 5280 section 4.1.2.5; RFC 9110 section 6.6.1
time-server-silent | info | The time server {server} that DHCP gives ({kind}) does not answer.
  | Start it, or take it out of the DHCP server's options.
  | RFC 2132 sections 3.6 and 8.3
ipv4-only | info | Nobody speaks IPv6 here: no router advertises itself, and no DHCPv6 server answers.
  | Nothing, unless machines are to boot over IPv6.
  | RFC 4861; RFC 8415
ipv6-only | warning | This network speaks IPv6 only: firmware set to IPv4 finds nothing.
  | Let the machines' firmware boot over IPv6, or start a DHCP server for IPv4.
  | RFC 8415; RFC 2131
ipv6-no-boot | info | IPv6 is here ({who}), and no boot file is offered over it (DHCPv6 option 59).
  | Nothing, as long as machines boot over IPv4.
  | RFC 5970 section 3.1
ipv6-no-router | warning | A DHCPv6 server answers, and no router advertises itself: machines get an address and no way
    out of this network.
  | Start router advertisements (radvd, or dnsmasq's enable-ra).
  | RFC 8415 section 18.2.10; RFC 4861
ipv6-boot-fails | error | What DHCPv6 offers to boot, {url}, cannot be had: {trouble}.
  | Look at the address, and whether that server listens on IPv6.
  | RFC 5970 section 3.1
shim-unsigned-second | warning | {shim} starts {name}, which is not signed: with Secure Boot on, shim refuses it.
  | Serve a GRUB signed by the same vendor as shim, or enrol its key (MOK).
  | shim.c, verify_buffer
"""

CAUSES: Mapping[str, Cause] = {**causes.CAUSES, **causes.read(_TABLE)}

SEVERITIES = causes.ORDER

_SHOWN_AS = {
    "secure-boot-unsigned-ipxe": "secure-boot-unsigned", "tftp-large-blocks-fragments": "tftp-large-blocks",
    "dns-server-silent": "dns-unanswered", "dns-server-needed": "dns-unanswered",
}  # fmt: skip
"""The same cause, less grave where it does no harm."""


@dataclass(frozen=True, slots=True)
class Told:
    """A finding, and words by which the same is known in what a capture showed (all of them must be there)."""

    finding: Finding
    marks: tuple[str, ...] = ()


def told(ident: str, *marks: str, **values: object) -> Told:
    """A finding of this cause with its values put in; machine is filled in by who lists it."""
    cause = CAUSES[ident]
    because, fix = cause.because.format_map(values), cause.fix.format_map(values)
    name = _SHOWN_AS.get(ident, ident)
    return Told(Finding(name, cause.severity, "", printable(because, 600), printable(fix, 600), cause.source), marks)


def seen_with(one: Finding, who: str) -> Finding:
    """The same, for people: who it was seen with."""
    return replace(one, machine=who)
