"""Networks on which netbooting is broken, each in one way: how it is made, and what the product has to say of it.

The table is read by tests/interop/test_fault_drill.py, which makes every fault for real, and by
tests/test_fault_drill_page.py, which compares docs/reference/fault-drill.md with it.

Four hosts on one bridge: the network's DHCP server (10.9.0.1), Bootwire (10.9.0.2), the machine (10.9.0.3, where the
doctor is run) and another (10.9.0.4). Longer than other files, since it is one table.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets import samples
from bootwire.serve.ports import owners
from namespaces import Namespace, dnsmasq, switched
from product import ROOT, Server

NETWORK, OURS, MACHINE, OTHER = "10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.4"
NOBODY = "10.9.0.77"
PATIENCE = 75.0
"""Seconds from the doctor's end to the verdict: the longest patience of a rule is 45 s."""


class Site:
    """What one fault is made of. folder: for its files, readable by every user."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.switch, hosts = stack.enter_context(switched(4))
        self.network, self.ours, self.machine, self.other = hosts
        self.mac = ""  # of the machine, where it must be known before
        self.servers: list[Server] = []
        self.published = self._made(folder / "files")
        self.loaders = self._made(folder / "loaders")
        self.kernel = str(self.write("vmlinuz", samples.bzimage()))
        self.initrd = str(self.write("initrd", samples.cpio(bytes(5000))))

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o644)
        return path

    def _made(self, path: Path) -> Path:
        path.mkdir()
        return path

    # --- who is there -----------------------------------------------------------------------------------------------

    def dhcp(self, *options: str, where: Namespace | None = None) -> None:
        """dnsmasq, as `namespaces.dnsmasq` has it, with more options."""
        self._stack.enter_context(dnsmasq(where or self.network, *options))

    def bootwire(
        self,
        *arguments: str,
        verb: str = "boot",
        where: Namespace | None = None,
        loaders: bool = True,
        within: tuple[str, ...] = (),
    ) -> Server:
        """A ready Bootwire. loaders: iPXE builds are at hand; else PXELINUX, for a BIOS alone. within: as `Server`."""
        if verb == "boot" and not arguments:
            arguments = (self.kernel, self.initrd)
        more = ("--loaders", str(self.with_loaders())) if loaders else ()
        server = Server(
            where or self.ours, *arguments, *more, "--files", str(self.published), "--no-fetch", "--json",
            "--state-dir", self.state(len(self.servers)), verb=verb, within=within,
        )  # fmt: skip
        self._stack.callback(_end, server)
        self.servers.append(server)
        server.ready()
        return server

    def state(self, number: int = 0) -> str:
        """The state directory of a Bootwire, in the order in which they were started."""
        return str(self.folder / f"state{number}")

    def order(self, *words: str) -> str:
        """A command to the first Bootwire, on its own host; what it prints."""
        process = self.ours.start(
            sys.executable, "-m", "bootwire", *words, "--state-dir", self.state(),
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, trouble = process.communicate(timeout=60)
        assert process.returncode == 0, (words, trouble.decode())
        return out.decode()

    def with_loaders(self) -> Path:
        """A directory of what Bootwire takes for iPXE builds."""
        marks = samples.ipxe_strings("2.0.0", "HTTP", "TFTP", "autoexec.ipxe")
        (self.loaders / "snponly.efi").write_bytes(samples.pe(body=marks + os.urandom(150_000)))
        undi = samples.ipxe_strings("2.0.0", "HTTP", "TFTP", drivers="undi")
        (self.loaders / "undionly.kpxe").write_bytes(samples.zbin(undi + os.urandom(60_000)))
        return self.loaders

    def run(self, where: Namespace, listens: tuple[str, int], *command: str) -> None:
        """A program that is ended with the site, once it listens: ("udp", 67)."""
        with (self.folder / "log").open("ab") as log:
            process = where.start(*command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._stack.callback(_stop, process)
        until = time.monotonic() + 20
        while not where.call(lambda: owners(*listens)):
            assert time.monotonic() < until, (command, (self.folder / "log").read_text())
            time.sleep(0.02)

    def udhcpd(self, settings: str, where: Namespace | None = None) -> None:
        """BusyBox's DHCP server for 10.9.0.201 to .210, with more lines in its file."""
        self.write("leases", b"")
        text = f"interface lan\nstart 10.9.0.201\nend 10.9.0.210\nlease_file {self.folder}/leases\n"
        conf = self.write("udhcpd.conf", f"{text}pidfile {self.folder}/udhcpd.pid\n{settings}\n".encode())
        self.run(where or self.network, ("udp", 67), "busybox", "udhcpd", "-f", str(conf))

    def kea(self, **subnet: object) -> None:
        """Kea for 10.9.0.201 to .210, with more of its subnet's settings."""
        pool = {"id": 1, "subnet": "10.9.0.0/24", "pools": [{"pool": "10.9.0.201 - 10.9.0.210"}], **subnet}
        settings = {
            "interfaces-config": {"interfaces": ["lan"]}, "lease-database": {"type": "memfile", "persist": False},
            "valid-lifetime": 3600, "subnet4": [pool],
        }  # fmt: skip
        conf = self.write("kea.json", json.dumps({"Dhcp4": settings}).encode())
        places = (f"KEA_PIDFILE_DIR={self.folder}", "KEA_LOCKFILE_DIR=none", f"KEA_DHCP_DATA_DIR={self.folder}")
        self.run(self.network, ("udp", 67), "env", *places, "kea-dhcp4", "-c", str(conf))

    def nginx(self, locations: str = "") -> None:
        """A web server on the other host's port 8000, with the directory www."""
        www = self.write("www/vmlinuz", samples.bzimage()).parent
        conf = self.write("nginx.conf", NGINX.format(folder=self.folder, www=www, locations=locations).encode())
        self.run(self.other, ("tcp", 8000), "nginx", "-c", str(conf), "-p", str(self.folder))

    def service(self, answer: str) -> None:
        """A boot service on the other host's port 8000 that does one thing."""
        self.run(self.other, ("tcp", 8000), sys.executable, "-c", SERVICE.format(answer=answer))

    def fleet(self, text: str) -> None:
        """A ready fleet of this file."""
        self.bootwire(str(self.write("fleet.toml", text.encode())), verb="serve")

    def router(self, *relays_to: str, router: str = "10.8.0.1", dhcp: tuple[str, ...] = ()) -> None:
        """The machine's cable goes to the other host, which routes: 10.8.0.1/24, the machine's network, and 10.9.0.4.

        relays_to: servers that its relay agent asks. router: what the DHCP server tells the machine, "" for none.
        dhcp: more of its options; the relay agent then leaves option 82 alone, else it adds its own and takes it out.
        """
        self.machine.run("ip link delete lan")
        self.other.run(f"ip link add far type veth peer name lan netns {self.machine.tid}")
        self.other.run("ip address add 10.8.0.1/24 dev far")
        self.other.run("ip link set far up")
        self.machine.run("ip link set lan up")
        self.other.run("sysctl -q -w net.ipv4.ip_forward=1")
        for host in (self.network, self.ours):
            host.run(f"ip route add 10.8.0.0/24 via {OTHER}")
        for host in (self.machine, self.other):
            host.wait_for_carrier()
        self.dhcp("--dhcp-range=set:far,10.8.0.100,10.8.0.200,255.255.255.0,1h", f"--dhcp-option=tag:far,3,{router}"
                  if router else "--dhcp-option=tag:far,3", *dhcp)  # fmt: skip
        self.run(self.other, ("udp", 67), "dhcrelay", "-4", "-d", *(() if dhcp else ("-a",)), "-pf",
                 f"{self.folder}/relay.pid", "-id", "far", "-iu", "lan", *relays_to)  # fmt: skip

    def filter(self, where: Namespace, rule: str, hook: str = "input") -> None:
        """An nftables rule there. hook: input, output, forward, or "egress device NAME", which sees raw packets, too;
        "egress" alone is that of `lan`."""
        hook = "egress device lan" if hook == "egress" else hook
        table, at = ("netdev" if "device" in hook else "inet"), f"hook {hook}"
        text = f"table {table} fault {{\n chain fault {{\n type filter {at} priority 0;\n {rule}\n }}\n}}\n"
        where.run(f"nft -f {self.write('fault.nft', text.encode())}")

    # --- what the product says --------------------------------------------------------------------------------------

    def examine(self, kind: str) -> dict[str, Any]:
        """The doctor's report of a machine of this kind."""
        words = [sys.executable, "-m", "bootwire", "doctor", "--nic", "lan", "--json", "--as", kind]
        words += ["--mac", self.mac] if self.mac else []
        process = self.machine.start(
            *words, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            out, trouble = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        assert out, trouble.decode()
        report: dict[str, Any] = json.loads(out)
        return report

    def verdict(self, machine: str) -> dict[str, Any]:
        """The first verdict on this machine that is not good, of whichever server has one."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for server in self.servers:
                for fact in server.facts:
                    if fact["kind"] == "verdict" and fact["machine"] == machine and fact["state"] != "booted":
                        return fact
            if all(server.process.poll() is not None for server in self.servers):
                break
            time.sleep(0.2)
        return {}


def _end(server: Server) -> None:
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    server.wait()


NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/log; events {{}}
http {{
  access_log off; default_type application/octet-stream;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 8000; root {www}; {locations} }}
}}
"""

SERVICE = """
import http.server, json, time
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        {answer}
    def say(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("10.9.0.4", 8000), Service).serve_forever()
"""


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break it.

    name     as the test is called
    made     how, in words for a person
    verdict  the cause that the running server names; "" where it cannot: why says why, or what is said besides
    doctor   the cause that the doctor names
    kind     of the machine, as `doctor --as` has it
    make     makes it
    says     words that the verdict has, where its cause alone says too little
    """

    name: str
    made: str
    verdict: str
    doctor: str
    kind: str
    make: Callable[[Site], object]
    why: str = ""
    says: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was said of a fault. findings: of the doctor, with their severity; facts: of each server."""

    verdict: dict[str, Any]
    report: dict[str, Any]
    facts: list[list[dict[str, Any]]]

    @property
    def findings(self) -> dict[str, str]:
        return {one["cause"]: one["severity"] for one in self.report["findings"]}


def drill(fault: Fault, folder: Path) -> Seen:
    """Make the fault, power a machine on, and hear what is said."""
    with contextlib.ExitStack() as stack:
        site = Site(folder, stack)
        fault.make(site)
        report = site.examine(fault.kind)
        verdict = site.verdict(report["trials"][0]["mac"]) if fault.verdict else {}
        return Seen(verdict, report, [server.facts for server in site.servers])


# --- the table --------------------------------------------------------------------------------------------------

PXE_ITSELF = ("--dhcp-option-force=60,PXEClient", "--dhcp-option-force=43,06:01:08")
"""A DHCP server that says it is a boot server, and that its file is to be taken: EDK2 prefers it to any proxy."""

HTTP_BOOT = ("--dhcp-vendorclass=set:http,HTTPClient", "--dhcp-option-force=tag:http,60,HTTPClient")
ADDRESSES = "option subnet 255.255.255.0\noption lease 3600"


def alone(site: Site) -> None:
    site.bootwire()


def firewall(rule: str, hook: str = "input", *, loaders: bool = True) -> Callable[[Site], None]:
    """On Bootwire's host."""

    def make(site: Site) -> None:
        site.dhcp()
        site.bootwire(loaders=loaders)
        site.filter(site.ours, rule, hook)

    return make


def small_mtu(site: Site) -> None:
    site.dhcp()
    site.bootwire()
    site.ours.run("ip link set lan gso_max_segs 1")  # a veth takes what is still one piece, whatever its size
    site.machine.run("ip link set lan mtu 1000")


def beside(*options: str, mode: str = "proxy") -> Callable[[Site], None]:
    """A DHCP server with these options, and Bootwire with loaders and published files."""

    def make(site: Site) -> None:
        (site.published / "big.0").write_bytes(b"\xea" * 600_000)
        (site.published / "boot").write_bytes(samples.pe())
        site.dhcp(*options)
        site.bootwire(site.kernel, site.initrd, "--mode", mode)

    return make


def without(name: str) -> Callable[[Site], None]:
    """The file is removed while Bootwire runs."""

    def make(site: Site) -> None:
        site.dhcp()
        site.bootwire()
        (site.folder / name).unlink()

    return make


def changed(data: bytes) -> Callable[[Site], None]:
    """The kernel becomes another file while Bootwire runs."""

    def make(site: Site) -> None:
        site.dhcp()
        site.bootwire()
        site.write("vmlinuz", data)

    return make


def fleet(text: str, locations: str = "", *, up: bool = True) -> Callable[[Site], None]:
    """A fleet file, and nginx for images. locations: of nginx; up: whether it runs."""

    def make(site: Site) -> None:
        site.dhcp()
        if up:
            site.nginx(locations)
        site.fleet(text)

    return make


def upstream(url: str, more: str = "") -> str:
    """A fleet file of one profile for all machines, whose kernel is another server's."""
    kernel = f'kernel = {{ location = "{url}"{more} }}'
    return f'[[group]]\nname = "all"\nprofile = "linux"\n[profiles.linux]\n{kernel}\n'


def service(answer: str, *arguments: str) -> Callable[[Site], None]:
    """A service decides. answer: "" where none runs."""

    def make(site: Site) -> None:
        site.dhcp()
        if answer:
            site.service(answer)
        site.bootwire(f"http://{OTHER}:8000", *arguments, verb="api")

    return make


def two_bootwires(site: Site) -> None:
    site.dhcp()
    site.bootwire()
    site.bootwire(where=site.other)


def exhausted(site: Site) -> None:
    site.udhcpd(f"{ADDRESSES}\nstart 10.9.0.201\nend 10.9.0.201\nstatic_lease 02:00:00:00:00:77 10.9.0.201")
    site.bootwire()


def duplicate(site: Site) -> None:
    """The other host has every address that dnsmasq hands out, and nobody looked before."""
    for addresses in ("10.9.0.64/26", "10.9.0.128/26", "10.9.0.192/28"):
        site.other.run(f"ip route add local {addresses} dev lan")
    site.dhcp()
    site.bootwire()


def refused(site: Site) -> None:
    """Two dnsmasqs that believe to be the only one; the ACK of the first is lost, the second one's NAK is not."""
    site.dhcp("--dhcp-authoritative")
    site.dhcp("--dhcp-authoritative", "--dhcp-reply-delay=1", "--dhcp-range=10.9.0.210,10.9.0.220", where=site.other)
    site.filter(site.network, "@th,2000,8 5 drop", "egress")
    site.bootwire()


def without_mask(site: Site) -> None:
    site.udhcpd("option lease 3600")
    site.bootwire()


def absent(site: Site) -> None:
    """Kea hands out the boot file of a host that is switched off."""
    site.kea(**{"next-server": NOBODY, "boot-file-name": "pxelinux.0"})
    site.bootwire()


def without_next_server(site: Site) -> None:
    site.udhcpd(f"{ADDRESSES}\nboot_file u-boot.scr")
    site.bootwire()


def fragments(site: Site) -> None:
    """The machine's router has to cut blocks into pieces, and a filter behind it lets none of those pass."""
    site.router(NETWORK, OURS)
    site.bootwire()
    site.other.run("ip link set far mtu 1000")
    site.filter(site.other, "ip frag-off & 0x3fff != 0 drop", "egress device far")


def unreadable(site: Site) -> None:
    """Bootwire's file is its user's own, and not even he may read it; root without the right to override that."""
    site.write("files/locked.0", samples.zbin(bytes(60_000))).chmod(0)
    site.dhcp(f"--dhcp-boot=locked.0,,{OURS}")
    site.bootwire(
        site.kernel, site.initrd, "--mode", "off",
        within=("setpriv", "--bounding-set", "-dac_override,-dac_read_search"),
    )  # fmt: skip


def expired(site: Site) -> None:
    """The machine is armed for a second, and comes later."""
    site.mac = "02:00:00:00:00:66"
    site.dhcp()
    site.fleet(INSTALLS)
    site.order("arm", site.mac, "--within", "1s")
    until = time.monotonic() + 20
    while "failed" not in site.order("machines"):
        assert time.monotonic() < until, site.order("machines")


INSTALLS = """
[[group]]
name = "all"
profile = "installer"
[profiles.installer]
kernel = "vmlinuz"
install = true
"""


def elsewhere(site: Site) -> None:
    site.dhcp(*HTTP_BOOT, f"--dhcp-boot=tag:http,http://{OTHER}:8000/moved.efi")
    site.nginx(f"location = /moved.efi {{ return 302 http://{OTHER}:8000/boot.efi; }}")
    site.bootwire()


def behind(*relays_to: str, router: str = "10.8.0.1", rule: str = "") -> Callable[[Site], None]:
    """The machine is behind a router with a relay agent. rule: of a firewall for what leaves Bootwire's host."""

    def make(site: Site) -> None:
        site.router(*relays_to, router=router)
        site.bootwire()
        if rule:
            site.filter(site.ours, rule, "egress")

    return make


FAULTS: tuple[Fault, ...] = (
    Fault("no DHCP server", "Bootwire is alone on the network", "no-dhcp-server", "no-dhcp-server", "bios", alone),
    Fault("no free address", "BusyBox's udhcpd has one address, and it is another machine's", "no-dhcp-server",
          "no-dhcp-server", "uefi", exhausted),
    Fault("address of another host", "dnsmasq (--no-ping) hands out an address that a host has", "",
          "duplicate-address", "uefi", duplicate,
          "it boots: Bootwire's host believes whose question it heard last, and that is the machine's"),
    Fault("lease refused", "a second DHCP server refuses the first one's addresses (NAK)", "lease-refused",
          "lease-refused", "uefi", refused),
    Fault("no subnet mask", "BusyBox's udhcpd sends no option 1", "offer-without-mask", "offer-without-mask", "uefi",
          without_mask),
    Fault("TFTP requests dropped", "a firewall drops what goes to UDP port 69", "no-tftp-request", "tftp-replies-lost",
          "bios", firewall("udp dport 69 drop")),
    Fault("TFTP answers dropped", "a firewall drops UDP between high ports", "tftp-replies-lost", "tftp-replies-lost",
          "bios", firewall("udp sport 1024-65535 udp dport 1024-65535 drop", "output")),
    Fault("small MTU", "the machine's link takes 1,000 octets, and nobody is told", "big-blocks-lost",
          "tftp-large-blocks", "uefi", small_mtu),
    Fault("4011 requests dropped", "a firewall drops what goes to UDP port 4011", "pxe-request-lost", "pxe-unanswered",
          "uefi", firewall("udp dport 4011 drop")),
    Fault("4011 answers dropped", "a firewall drops what comes from UDP port 4011", "pxe-answer-lost",
          "pxe-unanswered", "uefi", firewall("udp sport 4011 drop", "egress")),
    Fault("offers dropped for UEFI", "a switch drops Bootwire's DHCP offers (snooping)", "offers-ignored",
          "no-boot-server", "uefi", firewall("udp sport 67 drop", "egress")),
    Fault("offers dropped for BIOS", "the same, for a ROM that takes its address all the same", "proxy-ignored",
          "no-boot-server", "bios", firewall("udp sport 67 drop", "egress")),
    Fault("HTTP dropped", "a firewall drops what goes to TCP port 80", "http-blocked", "http-blocked", "ipxe",
          firewall("tcp dport 80 drop")),
    Fault("HTTP dropped behind the loader", "the same, for an iPXE that came over TFTP", "http-blocked", "http-blocked",
          "uefi", firewall("tcp dport 80 drop")),
    Fault("HTTP refused", "a firewall resets connections to TCP port 80", "http-blocked", "http-refused", "ipxe",
          firewall("tcp dport 80 reject with tcp reset")),
    Fault("boot file missing", "the DHCP server names a file that Bootwire does not have", "file-missing",
          "file-missing", "ipxe", beside(f"--dhcp-boot=nosuch.0,,{OURS}")),
    Fault("loader loop", "the DHCP server names Bootwire's loader to the loader, too", "loader-loop", "loader-loop",
          "bios", beside(f"--dhcp-boot=bios/undionly.kpxe,,{OURS}")),
    Fault("BIOS loader for UEFI", "the DHCP server names undionly.kpxe to everybody", "wrong-architecture",
          "wrong-architecture", "uefi", beside(f"--dhcp-boot=bios/undionly.kpxe,,{OURS}", mode="off")),
    Fault("UEFI loader for BIOS", "the DHCP server names snponly.efi to everybody", "wrong-architecture",
          "wrong-architecture", "bios", beside(f"--dhcp-boot=x86_64/snponly.efi,,{OURS}", mode="off")),
    Fault("loader too big", "the DHCP server names a file of 600 KB to a BIOS", "loader-too-big",
          "loader-too-big", "bios", beside(f"--dhcp-boot=big.0,,{OURS}", mode="off")),
    Fault("kernel missing", "the kernel was removed after Bootwire began", "kernel-missing", "kernel-missing", "ipxe",
          without("vmlinuz")),
    Fault("initrd missing", "the initrd was removed after Bootwire began", "initrd-missing", "initrd-missing", "ipxe",
          without("initrd")),
    Fault("kernel cut short", "the kernel became a file of 300 octets", "kernel-refused", "kernel-refused", "ipxe",
          changed(samples.bzimage()[:300])),
    Fault("kernel for another processor", "the kernel is for ARM, the machine is not", "kernel-refused",
          "kernel-refused", "uefi", changed(samples.arm64_image())),
    Fault("image not found", "the kernel's own server says 404", "image-refused", "http-error", "ipxe",
          fleet(upstream(f"http://{OTHER}:8000/nosuch"))),
    Fault("image server broken", "the kernel's own server says 500", "image-refused", "http-error", "ipxe",
          fleet(upstream(f"http://{OTHER}:8000/broken"), "location = /broken { return 500; }")),
    Fault("image server down", "nothing listens where the kernel is", "image-refused", "http-error", "ipxe",
          fleet(upstream(f"http://{OTHER}:8000/vmlinuz"), up=False)),
    Fault("image server's name unknown", "the kernel's URL has a name that does not resolve", "image-refused",
          "http-error", "ipxe", fleet(upstream("http://images.invalid/vmlinuz"), up=False)),
    Fault("wrong digest", "the fleet file's sha256 is not the kernel's", "image-refused", "http-error", "ipxe",
          fleet(upstream(f"http://{OTHER}:8000/vmlinuz", f', sha256 = "{"ab" * 32}"'))),
    Fault("no rule for the machine", "the fleet file knows another machine only", "declined", "no-boot-server", "bios",
          fleet('[[machine]]\nname = "other"\nmac = "02:00:00:00:00:77"\nprofile = "linux"\n[profiles.linux]\n'
                'kernel = "vmlinuz"\n')),
    Fault("service down", "nothing listens where the boot service is", "declined", "no-boot-server", "bios",
          service("")),
    Fault("service slow", "the boot service takes longer than it may", "declined", "no-boot-server", "ipxe",
          service("time.sleep(60)", "--api-request-timeout", "3s")),
    Fault("service says no", "the boot service says 404", "declined", "no-boot-server", "bios",
          service("self.say(404)")),
    Fault("rival boot server", "the DHCP server is a boot server itself, without TFTP", "second-server",
          "second-server", "uefi", beside("--dhcp-boot=other.efi", *PXE_ITSELF)),
    Fault("rival that is not there", "the same, and it names a host that is switched off", "second-server",
          "arp-unanswered", "uefi", beside("--dhcp-boot=other.efi,,10.9.0.77", *PXE_ITSELF)),
    Fault("two Bootwires", "a second one on the same network", "second-server", "second-server", "bios",
          two_bootwires),
    Fault("option 60 left over", "the DHCP server says PXEClient, and offers nothing to boot", "vendor-class-alone",
          "vendor-class-alone", "uefi", beside("--dhcp-option-force=60,PXEClient")),
    Fault("DHCP server's script wins", "the DHCP server names a script of its own to iPXE", "second-server",
          "dhcp-file-wins", "bios", beside(f"--dhcp-boot=http://{NETWORK}/own.ipxe")),
    Fault("HTTP Boot file missing", "the DHCP server names a URL that Bootwire does not have", "file-missing",
          "http-missing", "uefi-http", beside(*HTTP_BOOT, f"--dhcp-boot=tag:http,http://{OURS}/files/no.efi",
                                              mode="off")),
    Fault("HTTP Boot file of no known type", "a URL without .efi, of a server that does not say application/efi",
          "http-wrong-type", "http-wrong-type", "uefi-http",
          beside(*HTTP_BOOT, f"--dhcp-boot=tag:http,http://{OURS}/files/boot", mode="off")),
    Fault("HTTP Boot sent elsewhere", "the DHCP server names a URL that answers with a redirection", "second-server",
          "http-redirect", "uefi-http", elsewhere),
    Fault("DHCP server's boot server is off", "Kea names a boot file of a host that is off, and a loader follows it",
          "http-blocked", "arp-unanswered", "bios", absent,
          "or that: Kea answers the machine alone, and nobody else hears what it names",
          says=f"or the DHCP server {NETWORK} names a boot file of its own"),
    Fault("no next-server", "BusyBox's udhcpd names a boot file and no server (siaddr 0.0.0.0)", "no-next-server",
          "no-next-server", "u-boot", without_next_server),
    Fault("boot file not readable", "the DHCP server names a file that Bootwire may not read", "file-forbidden",
          "file-forbidden", "bios", unreadable),
    Fault("armed too long ago", "the fleet file's installer was armed for a second, and the machine came later",
          "not-armed", "no-boot-server", "bios", expired, says="its time was over before it had booted"),
    Fault("fragments dropped", "a router cuts blocks into pieces, and a firewall behind it drops those",
          "big-blocks-lost", "tftp-large-blocks", "uefi", fragments),
    Fault("relay without Bootwire", "the relay agent asks the DHCP server alone", "", "relay-not-to-us", "bios",
          behind(NETWORK), "Bootwire is never asked: no packet of the machine comes to it"),
    Fault("answers to the relay dropped", "a firewall drops what Bootwire sends to the relay agent", "relay-drops",
          "relay-not-to-us", "uefi", behind(NETWORK, OURS, rule="udp sport 67 udp dport 67 drop")),
    Fault("no router", "behind a router, the DHCP server sends no option 3", "no-tftp-request", "no-router", "bios",
          behind(NETWORK, OURS, router="")),
    Fault("wrong router", "behind a router, option 3 is nobody's address", "no-tftp-request", "arp-unanswered", "bios",
          behind(NETWORK, OURS, router="10.8.0.99")),
)  # fmt: skip

SECURE_BOOT = Fault(
    "unsigned loader", "OVMF in QEMU, with Microsoft's keys and Secure Boot on, gets iPXE, which nobody signed",
    "loader-refused", "secure-boot-unsigned", "uefi", lambda site: None,
)  # fmt: skip
"""Made by tests/e2e/test_fault_drill.py: no persona refuses a loader by its signature."""
