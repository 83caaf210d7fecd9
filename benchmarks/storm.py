"""Hundreds of machines netboot at once, over real sockets, from the server as it ships.

    sudo ./.venv/bin/python benchmarks/storm.py --machines 200

Makes a private network (namespaces, one bridge), starts an ordinary DHCP server (dnsmasq without any PXE setting) and
`bootwire boot` in it, and powers on N firmware personas on an interface of their own each: UEFI PXE, BIOS PXE ROMs,
iPXE ROMs and UEFI HTTP Boot. Each gets its address from dnsmasq, its loader over TFTP (UEFI HTTP Boot: over HTTP), its
script, and its kernel and initrd over HTTP; every octet is digested and compared.

Ends with a table, and with exit status 1 if any machine did not boot, got a wrong octet, or had to ask for anything
twice (but for what dnsmasq's socket itself had no room for). Nothing of this machine's own network is touched;
everything ends with this process.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import json
import lzma
import os
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bootwire.preboot.personas import bios, edk2, ipxe, uefi_http
from bootwire.preboot.personas.steps import Booted, Machine, Persona
from bootwire.serve.interfaces import interfaces
from bootwire.serve.loop import Loop
from bootwire.serve.personas import Personas, Station

SERVER, DHCP, MASK = "10.77.0.1", "10.77.0.2", "255.255.0.0"
MIX = ("uefi", "bios", "ipxe", "uefi", "uefi-http", "bios", "uefi", "ipxe", "uefi", "bios")
DISCOVERS = {"uefi": 2, "bios": 2, "ipxe": 1, "uefi-http": 2}  # firmware and the iPXE that it loads: one each
DISCOVERED = "DISCOVERs beyond one an exchange"
CMDLINE = "console=ttyS0 storm=1"

NEIGHBOURS = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
NEIGHBOURS_EACH = 4  # Bootwire's and dnsmasq's entry for the machine, the machine's for both

_CLONE_NEWNET = 0x40000000  # linux/sched.h


# --- what is booted ---------------------------------------------------------------------------------------------


def kernel(octets: int, seed: int) -> bytes:
    """Random octets with the heads of a Linux bzImage and of its EFI stub."""
    data = bytearray(random.Random(seed).randbytes(octets))
    data[:4096] = pe_head().ljust(4096, b"\0")
    data[0x1F1] = 4
    data[0x1F4:0x1F8] = ((octets - 5 * 512) // 16).to_bytes(4, "little")
    data[0x1FE:0x208] = b"\x55\xaa\xeb\x6aHdrS\x0f\x02"
    data[0x20E:0x210] = b"\0\0"
    data[0x236:0x238] = b"\x3f\0"
    return bytes(data)


def pe_head() -> bytes:
    """A PE32+ header of an EFI application for x86-64, its PE signature where a kernel's boot sector leaves room."""
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 0, 0, 0, 0, 240, 0x206)
    optional = bytearray(240)
    optional[:2], optional[68:70] = b"\x0b\x02", b"\x0a\0"
    return b"MZ" + bytes(58) + struct.pack("<I", 0x40) + coff + bytes(optional)


def loaders(to: Path) -> None:
    """Files that Bootwire takes for iPXE builds, for a run where the real ones are not at hand."""
    marks = b"\0iPXE 2.0.0 -- Open Source Network Boot Firmware\0HTTP\0TFTP\0autoexec.ipxe\0"
    body = random.Random(1).randbytes(250_000)
    (to / "snponly.efi").write_bytes(pe_head() + marks + b"SNPONLY\0" + body)
    filters = [{"id": lzma.FILTER_LZMA1, "lc": 2, "lp": 0, "pb": 0, "dict_size": 1 << 20}]
    packed = lzma.compress(marks + b"UNDIONLY\0" + bytes(8192) + body[:90_000], lzma.FORMAT_RAW, filters=filters)
    (to / "undionly.kpxe").write_bytes(b"\xea" + b"\x90" * 599 + packed)


# --- the private network ----------------------------------------------------------------------------------------


class Namespace:
    """A network namespace that lives as long as a sleeping child in it."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "-n", "sleep", "infinity"], stdin=subprocess.DEVNULL
        )
        self.pid = self._holder.pid
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self.pid}/ns/net") == own:  # the child is on its way there
            time.sleep(0.01)

    def command(self, *command: str) -> list[str]:
        return ["setpriv", "--pdeathsig", "TERM", "nsenter", "-t", str(self.pid), "-n", *command]

    def run(self, command: str) -> None:
        subprocess.run(self.command(*command.split()), check=True)

    def overflows(self) -> int:
        """UDP datagrams that were lost here because their socket's buffer was full."""
        lines = Path(f"/proc/{self.pid}/net/snmp").read_text().splitlines()
        names, counts = (line.split() for line in lines if line.startswith("Udp:"))
        return int(counts[names.index("RcvbufErrors")])

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


def ip(*lines: str) -> None:
    """Run `ip` once for all lines, in this process's own namespace."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def leave() -> None:
    """Put this process into a new network namespace."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")


@contextlib.contextmanager
def network(machines: int) -> Iterator[tuple[Namespace, Namespace]]:
    """(server's, DHCP server's) namespaces; this process is in a third, which has the machines' interfaces m0, m1 …

    Interfaces and bridge: server "lan0" - br0 - "lan0" DHCP server; br0 - w0 - w1 - m0 … (macvlan, each its own MAC).
    """
    server, dhcp = Namespace(), Namespace()
    try:
        leave()
        ip("link set lo up", "link add br0 type bridge", "link set br0 up")
        for number, (space, address) in enumerate(((server, SERVER), (dhcp, DHCP))):
            ip(f"link add v{number} type veth peer name lan0 netns {space.pid}",
               f"link set v{number} master br0 up")  # fmt: skip
            space.run("ip link set lo up")
            space.run(f"ip address add {address}/16 dev lan0")
            space.run("ip link set lan0 up")
        ip("link add w0 type veth peer name w1", "link set w0 master br0 up", "link set w1 up")
        for name, value in (("arp_ignore", 1), ("arp_announce", 2), ("rp_filter", 0)):
            Path(f"/proc/sys/net/ipv4/conf/all/{name}").write_text(str(value))
        Path("/proc/sys/net/ipv4/conf/default/rp_filter").write_text("0")
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        ip(*(line for number in range(machines) for line in (
            f"link add m{number} link w1 address {mac(number).hex(':')} type macvlan mode private",
            f"link set m{number} up",
        )))  # fmt: skip
        yield server, dhcp
    finally:
        server.close()
        dhcp.close()


def mac(number: int) -> bytes:
    return b"\x52\x54\x00\x77" + number.to_bytes(2, "big")


def start_dnsmasq(space: Namespace, state: Path) -> subprocess.Popen[bytes]:
    """An ordinary DHCP server: a range of addresses and a router, nothing about booting.

    --no-ping: dnsmasq looks for each address for three seconds before it offers it, one after another (dhcp.c,
    address_allocate); machines that all start at once would wait for that alone.
    """
    return subprocess.Popen(
        space.command(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=lan0",
            "--bind-interfaces", "--user=root", f"--dhcp-range=10.77.16.0,10.77.63.255,{MASK},1h",
            "--dhcp-option=option:router,10.77.0.1", "--dhcp-lease-max=10000", "--no-ping", "--dhcp-authoritative",
            f"--dhcp-leasefile={state}/leases", f"--pid-file={state}/dnsmasq.pid",
            f"--log-facility={state}/dnsmasq.log",
        ),
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


class Server:
    """`bootwire boot` in its namespace: ready when it says so, asked for its memory, ended by SIGTERM."""

    def __init__(self, space: Namespace, state: Path, arguments: list[str]) -> None:
        command = (sys.executable, "-m", "bootwire", "boot", *arguments, "-i", "lan0", "--json", "--no-fetch",
                   "--state-dir", str(state))  # fmt: skip
        self._log = (state / "server.log").open("wb")
        self._process = subprocess.Popen(
            space.command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log
        )
        self.facts: Counter[str] = Counter()
        self.failures: list[dict[str, object]] = []
        self._services: set[str] = set()
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(30):
            raise SystemExit(f"the server did not start:\n{(state / 'server.log').read_text()}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            fact = json.loads(line)
            self.facts[fact["kind"]] += 1
            if fact["kind"] == "listening":
                self._services.add(fact["service"])
                if {"dhcp", "pxe", "tftp", "http"} <= self._services:
                    self._ready.set()
            elif fact["kind"] in ("transfer-failed", "refusal", "warning", "silence"):
                self.failures.append(fact)

    def memory(self) -> tuple[float, float]:
        """(peak, now) of resident memory in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Vm")}
        return int(found["VmHWM"]) / 1024, int(found["VmRSS"]) / 1024

    def seconds(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(20)
        self._reader.join(5)
        self._log.close()
        return status


# --- the storm --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """SHA-256 of everything that may be fetched, by what it is."""

    digests: dict[str, str]

    def trouble(self, kind: str, station: Station) -> list[str]:
        """What is wrong with a machine's boot; nothing if all is well."""
        outcome = station.outcome
        if not isinstance(outcome, Booted):
            return [f"did not boot: {outcome} (screen: {' / '.join(station.screen[-4:])})"]
        found: list[str] = []
        if not outcome.cmdline.endswith(CMDLINE):
            found.append(f"wrong command line: {outcome.cmdline}")
        if outcome.kernel.sha256 != self.digests["kernel"]:
            found.append("kernel differs")
        if [image.sha256 for image in outcome.initrds] != [self.digests["initrd"]]:
            found.append("initrds differ")
        fetched = [file for file in station.files if file.name.endswith((".efi", ".kpxe"))]
        wanted = {"uefi": "snponly.efi", "uefi-http": "snponly.efi", "bios": "undionly.kpxe"}.get(kind)
        if wanted is None and fetched:
            found.append(f"needed no loader and got {fetched[0].name}")
        elif wanted is not None:
            if [file.name.rsplit("/", 1)[-1] for file in fetched] != [wanted]:
                found.append(f"got the loaders {[file.name for file in fetched]}")
            elif fetched[0].sha256 != self.digests[wanted]:
                found.append("loader differs")
            elif (fetched[0].how == "http") != (kind == "uefi-http"):
                found.append(f"got its loader over {fetched[0].how}")
        return found


def storm(arguments: argparse.Namespace, state: Path) -> int:
    boot, initrd = state / "vmlinuz", state / "initrd"
    boot.write_bytes(kernel(arguments.kernel_mib << 20, 1))
    initrd.write_bytes(b"070701" + random.Random(2).randbytes((arguments.initrd_mib << 20) - 6))
    folder = Path(arguments.loaders) if arguments.loaders else state / "loaders"
    if not arguments.loaders:
        folder.mkdir()
        loaders(folder)
    files = {"kernel": boot, "initrd": initrd, **{name: folder / name for name in ("snponly.efi", "undionly.kpxe")}}
    expected = Expected({name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()})
    with network(arguments.machines) as (server_space, dhcp_space):
        dnsmasq = start_dnsmasq(dhcp_space, state)
        server = Server(
            server_space, state, [str(boot), str(initrd), "--cmdline", CMDLINE, "--loaders", str(folder)]
        )  # fmt: skip
        try:
            idle = server.memory()[1]
            stations, seconds = run(arguments)
            peak = server.memory()[0]
            processor = server.seconds()
            lost = dhcp_space.overflows()
        finally:
            status = server.stop()
            dnsmasq.terminate()
            dnsmasq.wait(10)
    return report(arguments, expected, stations, seconds, (idle, peak, processor), server, status, lost)


def run(arguments: argparse.Namespace) -> tuple[list[tuple[str, Station]], float]:
    """Power everything on at once; (kind, station) of each machine, and the seconds until the last had ended."""
    loop = Loop()
    left = [arguments.machines]

    def ended(_: Station) -> None:
        left[0] -= 1
        if not left[0]:
            loop.stop()

    link = next(one for one in interfaces() if one.name == "w1")
    personas = Personas(loop, link, ended)
    stations: list[tuple[str, Station]] = []

    def power_on(number: int) -> None:
        kind = MIX[number % len(MIX)]
        rng = random.Random(f"{arguments.seed} {number}")
        machine = Machine(mac(number), rng.randbytes(16), rng)
        stations.append((kind, personas.power_on(machine, f"m{number}", persona(kind, machine))))

    began = time.monotonic()
    for number in range(arguments.machines):
        loop.at(loop.now, lambda _, number=number: power_on(number))
    loop.at(loop.now + arguments.patience * 1_000_000_000, lambda _: loop.stop())
    loop.run()
    seconds = time.monotonic() - began
    personas.close()
    return stations, seconds


def persona(kind: str, machine: Machine) -> Persona:
    return {"uefi": edk2.boot, "bios": bios.boot, "ipxe": ipxe.rom, "uefi-http": uefi_http.boot}[kind](machine)


def report(
    arguments: argparse.Namespace,
    expected: Expected,
    stations: list[tuple[str, Station]],
    seconds: float,
    server_used: tuple[float, float, float],
    server: Server,
    status: int,
    lost: int,
) -> int:
    bad: list[str] = []
    late: list[str] = []
    repeats = Counter[str]()
    for kind, station in stations:
        name = f"{kind} {station.machine.mac_text}"
        bad += [f"{name}: {what}" for what in expected.trouble(kind, station)]
        extra = station.machine.discovers - DISCOVERS[kind]
        repeats[DISCOVERED] += extra
        repeats["packets of a transfer sent again"] += station.machine.repeats
        late += [
            f"{name}: {file.name} {file.repeats} repeats in {file.seconds:.2f} s"
            for file in station.files
            if file.repeats
        ]
    idle, peak, processor = server_used
    octets = sum(file.octets for _, station in stations for file in station.files)
    print(f"{'firmware':10} {'machines':>8} {'booted':>7} {'median s':>9} {'slowest s':>10}")
    for kind in dict.fromkeys(MIX):
        times = [(station.ended - station.began) / 1e9 for k, station in stations if k == kind and station.outcome]
        well = sum(isinstance(station.outcome, Booted) for k, station in stations if k == kind)
        count = sum(k == kind for k, _ in stations)
        if times:
            print(f"{kind:10} {count:8} {well:7} {statistics.median(times):9.2f} {max(times):10.2f}")
    print(f"\n{len(stations)} machines in {seconds:.2f} s; {octets / 1e6:,.0f} MB delivered and digested; "
          f"{octets / 1e6 / seconds:,.0f} MB/s")  # fmt: skip
    print(f"server: peak resident {peak:.1f} MiB ({idle:.1f} MiB before), {processor:.1f} s of processor time, "
          f"exit status {status}")  # fmt: skip
    for what, count in repeats.items():
        print(f"{what}: {count}")
    print(f"datagrams that dnsmasq's socket had no room for: {lost} (each makes a machine ask again)")
    print("facts: " + ", ".join(f"{kind} {count}" for kind, count in sorted(server.facts.items())))
    for failure in server.failures[:10]:
        print(f"server says: {failure}")
    for line in (bad + late)[:20]:
        print(line)
    ours = max(0, repeats.pop(DISCOVERED) - lost) + sum(repeats.values())
    ok = not bad and not ours and status == 0 and len(stations) == arguments.machines
    print("PASS" if ok else "FAIL")
    return 0 if ok else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=200, metavar="N")
    parser.add_argument("--kernel-mib", type=int, default=8, metavar="MIB", help="size of the kernel")
    parser.add_argument("--initrd-mib", type=int, default=16, metavar="MIB", help="size of the initrd")
    parser.add_argument("--loaders", metavar="DIR", help="snponly.efi, undionly.kpxe to serve")
    parser.add_argument("--patience", type=int, default=240, metavar="S", help="seconds before it is called off")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    missing = [name for name in ("dnsmasq", "ip", "nsenter", "setpriv", "unshare") if not shutil.which(name)]
    if os.geteuid() or missing:
        what = f"install {', '.join(missing)}" if missing else f"run as root: sudo {sys.executable} {sys.argv[0]}"
        print(f"needs root, for network namespaces: {what}" if not missing else what, file=sys.stderr)
        return 2
    room, needed = int(NEIGHBOURS.read_text()), NEIGHBOURS_EACH * arguments.machines
    if room < needed:
        why = f"{arguments.machines} machines need room in the kernel's table of neighbours, one for all namespaces"
        how = f"sudo sysctl -w net.ipv4.neigh.default.gc_thresh3={needed}   (it is {room})"
        print(f"{why}:\n  {how}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="bwstorm") as state:
        return storm(arguments, Path(state))


if __name__ == "__main__":
    sys.exit(main())
