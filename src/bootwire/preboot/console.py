"""The loader's prompt: look round a network, fetch, load a kernel and let it run. One command a line, or a script.

    fetch http://boot.example/README && ls http://boot.example/ || echo "nobody there"
    set base=http://boot.example/debian/ ; load kernel linux ; load initrd initrd.gz ; boot save /tmp/debian

Words are quoted as in a shell; `${name}` is a setting; `#` begins a comment line. A script ends at the first command
that fails, unless `||` follows it.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bootwire.engine import S
from bootwire.preboot import ping, script
from bootwire.preboot.fetch import Fetcher, FetchError, Options, Progress, parse, shown
from bootwire.preboot.handoff import load as handoff
from bootwire.preboot.handoff import machine
from bootwire.preboot.handoff.refusal import HandoffError
from bootwire.preboot.httpfs import HttpFs
from bootwire.preboot.online import Online
from bootwire.preboot.personas.steps import Booted, Started
from bootwire.preboot.power_on import FIRMWARE
from bootwire.preboot.proxies import Proxies
from bootwire.preboot.stack import packed, text
from bootwire.preboot.telnet import Session, window_size
from bootwire.preboot.transport import KernelTransport, Transport
from bootwire.wire import ethernet
from bootwire.wire.listing import Entry
from bootwire.wire.text import printable

PROMPT: Final = "bootwire> "
_HISTORY: Final = 1000  # lines kept
_LARGEST: Final = 4 << 30  # octets of a kernel or initrd
_SHOWN: Final = 4 << 20  # octets of a file that `cat` shows to a person
_WIDEST: Final = 4096  # characters of one of its lines

_SETTINGS: Final = {
    "base": "where names without a scheme are looked for (a URL)",
    "cmdline": "the kernel's command line",
    "proxy": "HTTP proxy; empty for none",
    "direct": "hosts and networks that no proxy is used for",
    "trust": "file of CA certificates for https; empty for this machine's own",
}


_CHOICES: Final = {"load": ("kernel", "initrd", "freebsd"), "boot": ("show", "save", "qemu", "kexec")}


class Wrong(Exception):
    """A command that cannot be done; the text says why."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What `load` got. kind: "kernel" or "initrd"."""

    kind: str
    file: handoff.File


class Console:
    """Runs commands.

    online    our own card and stack; None: this machine's own network
    say       takes a line for people
    write     takes a file's octets as they are; None: they are said, line by line, without control characters
    progress  makes what a long transfer tells how far it is
    """

    def __init__(
        self,
        online: Online | None,
        *,
        say: Callable[[str], object] = print,
        write: Callable[[bytes], object] | None = None,
        progress: Callable[[], Progress | None] = lambda: None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._online = online
        self._say, self._write, self._progress = say, write, progress
        self._transport: Transport = KernelTransport() if online is None else online.transport()
        self._proxies = Proxies.from_environment(os.environ if environment is None else environment)
        self.settings = dict.fromkeys(_SETTINGS, "")
        self.settings["proxy"] = self._proxies.http
        self.settings["direct"] = ",".join(self._proxies.direct)
        self._fetcher = self._new_fetcher()
        self._pieces: list[_Piece] = []
        self._freebsd: handoff.LoadedFreeBsd | None = None
        self.over = False

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, line: str) -> bool:
        """Do one line; whether its last command succeeded."""
        try:
            steps = script.parse(line)
        except ValueError as error:
            self._say(f"{error}")
            return False
        good = True
        for joint, words in steps:
            if (joint == "&&" and not good) or (joint == "||" and good):
                continue
            if joint == ";" and not good:
                return False
            good = self._do([self._expand(word) for word in words])
            if self.over:
                break
        return good

    def script(self, lines: Iterable[str]) -> bool:
        """Do lines until one fails or says `exit`; whether all succeeded."""
        for line in lines:
            if not self.run(line):
                return False
            if self.over:
                break
        return True

    def interact(self) -> None:
        """A person at the prompt, with history and completion, until `exit` or the end of the input."""
        import readline

        history = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "bootwire" / "history"
        with contextlib.suppress(OSError):
            readline.read_history_file(history)
        readline.set_history_length(_HISTORY)
        readline.set_completer_delims(" \t;&|")
        readline.set_completer(self.complete)
        readline.parse_and_bind("tab: complete")
        self._say("Type help for the commands, exit to leave.")
        while not self.over:
            try:
                line = input(PROMPT)
            except EOFError:
                self._say("")
                break
            except KeyboardInterrupt:
                self._say("^C")
                continue
            try:
                self.run(line)
            except KeyboardInterrupt:
                self._say("interrupted")
        with contextlib.suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True)
            history.touch(0o600)  # a URL may have a password in it
            history.chmod(0o600)
            readline.write_history_file(history)

    def complete(self, word: str, state: int) -> str | None:
        """The `state`th completion of the word that readline is at."""
        import readline

        if state == 0:
            before = re.split(r"[;&|]", readline.get_line_buffer()[: readline.get_begidx()])[-1].split()
            self._found = self.completions(before, word)
        return self._found[state] if state < len(self._found) else None

    def completions(self, before: Sequence[str], word: str) -> list[str]:
        """What `word` may become after the words `before` it."""
        if not before:
            return [f"{name} " for name in sorted(_COMMANDS) if name.startswith(word)]
        if before[0] in ("set", "unset"):
            return [f"{name}=" if before[0] == "set" else name for name in self.settings if name.startswith(word)]
        if before[0] in ("show", "echo"):
            return [name for name in sorted(self._told() | self.settings) if name.startswith(word)]
        if before[0] == "help":
            return [name for name in sorted(_COMMANDS) if name.startswith(word)]
        if before == ["poweron"]:
            return [name for name in FIRMWARE if name.startswith(word)]
        choices = _CHOICES.get(before[0], ()) if len(before) == 1 else ()
        if found := [f"{choice} " for choice in choices if choice.startswith(word)]:
            return found
        if before[0] in ("ls", "cat", "load", "fetch", "cd"):
            return self._paths(word)
        return []

    def close(self) -> None:
        self._fetcher.close()

    # --- the network ----------------------------------------------------------------------------------------------

    def net(self) -> None:
        """net: the card, its addresses and name servers"""
        online = self._online
        if online is None:
            self._say("this machine's own network; --nic gives the console a card of its own")
            return
        nic, host = online.stack.nic, online.stack.host
        self._say(f"MAC {ethernet.mac_text(nic.mac)}, MTU {nic.mtu}")
        for address, prefix in host.addresses:
            self._say(f"address {text(address)}/{prefix}")
        for server in online.servers:
            self._say(f"name server {server}")
        for domain in online.search:
            self._say(f"search {domain}")

    def dhcp(self) -> None:
        """dhcp: ask for an address again, and show what was told"""
        network = self._own("dhcp").obtain()
        self._say(f"address {network.address}/{network.prefix} from {network.server} for {network.seconds} s")

    def arp(self) -> None:
        """arp: who is at which MAC address"""
        if self._online is None:
            for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
                dotted, _, _, mac, _, device = line.split()[:6]
                self._say(f"{dotted:<40} {mac} on {device}")
            return
        with self._online.stack.acting() as now:
            for address, where, heard in self._online.stack.host.neighbours.table():
                seen = f"{ethernet.mac_text(where)} {(now - heard) / S:.0f} s ago" if where else "asking"
                self._say(f"{text(address):<40} {seen}")

    def route(self, *words: str) -> None:
        """route [add NETWORK/BITS [GATEWAY] | default GATEWAY | del NETWORK/BITS]: show or change the routing table"""
        stack = self._own("route").stack
        match words:
            case ():
                for route in stack.host.routes:
                    to = f"via {text(route.gateway)}" if route.gateway else "on the link"
                    self._say(f"{text(route.network)}/{route.prefix} {to}")
            case ("default", gateway) | ("add", "default", gateway):
                stack.add_route("::/0" if ":" in gateway else "0.0.0.0/0", gateway)
            case ("add", network) if "/" in network:
                stack.add_route(network, None)
            case ("add", network, gateway) if "/" in network:
                stack.add_route(network, gateway)
            case ("del", name):
                address, _, bits = ("0.0.0.0/0" if name == "default" else name).partition("/")
                octets = packed(address)
                with stack.acting():
                    if not stack.host.routes.delete(octets, int(bits or 8 * len(octets))):
                        raise Wrong(f"there is no route to {name}")
            case _:
                raise Wrong(_usage("route"))

    def ping(self, host: str, count: str = "4") -> None:
        """ping HOST [COUNT]: ask whether it is there"""
        asker = ping.KernelCard() if self._online is None else ping.OurCard(self._online)
        if ping.run(asker, host, int(count), 56, self._say):
            raise Wrong("no answer")

    def resolve(self, name: str) -> None:
        """resolve NAME: its addresses"""
        for address in self._transport.resolve(name):
            self._say(address)

    def sockets(self) -> None:
        """sockets: connections, listeners and datagram ports of our own stack"""
        stack = self._own("sockets").stack
        with stack.acting():
            for flow in stack.host.flows:
                c = flow.connection
                ends = f"{text(flow.local)} {c.local} -> {text(flow.remote)} {c.remote}"
                self._say(f"tcp {ends} {c.state.value}")
            for listener in stack.host.listeners:
                self._say(f"tcp port {listener.port} listening")
            for port in stack.host.udp_ports:
                self._say(f"udp port {port.port}, {len(port.queue)} datagrams waiting")

    def stats(self) -> None:
        """stats: what the card has moved, and what was dropped and why"""
        stack = self._own("stats").stack
        with stack.acting():
            s = stack.nic.statistics
            self._say(f"received {s.received} frames, {s.received_octets} octets")
            self._say(f"sent {s.sent} frames, {s.sent_octets} octets; {s.lost} lost")
            for because, times in sorted(stack.host.dropped.items()):
                self._say(f"dropped {times}: {because}")

    def hello(self) -> None:
        """hello: all that this machine and the network told us"""
        self._say(f"machine {platform.node()}, {platform.machine()}")
        self.net()
        for name, value in self._told().items():
            self._say(f"{name} = {printable(value)}")
        network = self._online.network if self._online else None
        if network is not None:
            for code, octets in network.lease.choice.offer.message.options:
                self._say(f"DHCP option {code}: {octets[:64].hex()} {printable(octets[:64])}")

    def telnet(self, host: str, port: str = "23") -> None:
        """telnet HOST [PORT]: a session; Ctrl-] ends it"""
        columns, rows = window_size(1) or (80, 24)
        kind = os.environ.get("TERM", "vt100")
        with Session(self._transport, host, int(port), kind=kind, columns=columns, rows=rows) as session:
            session.interact()
            self._say("")
            self._say("the server hung up" if session.over else "left")

    # --- files ----------------------------------------------------------------------------------------------------

    def fetch(self, url: str, path: str = "", digest: str = "") -> None:
        """fetch URL [FILE [DIGEST]]: into a file, whole or not at all"""
        url = self._url(url)
        path = path or parse(url).target.partition("?")[0].rpartition("/")[2]
        if path in ("", ".", ".."):
            raise Wrong(f"{url} names no file: fetch URL FILE")
        got = self._fetcher.save(url, path, digest=digest, progress=self._progress())
        rate = got.octets * 8e-6 / max(got.seconds, 1e-9)
        self._say(f"{path}: {got.octets} octets in {got.seconds:.2f} s, {rate:.0f} Mbit/s, sha256 {got.sha256}")

    def ls(self, where: str = "") -> None:
        """ls [URL or NAME]: what is in a directory"""
        for line in listed(HttpFs(self._fetcher, self._url(where)).ls()):
            self._say(line)

    def cat(self, where: str) -> None:
        """cat URL or NAME: show a file"""
        if self._write is not None:
            write = self._write
            self._fetcher.fetch(self._url(where), lambda data: write(bytes(data)))
            return
        for line in self._fetcher.read(self._url(where), _SHOWN).decode("utf-8", "replace").splitlines():
            self._say(printable(line, _WIDEST))

    def cd(self, where: str) -> None:
        """cd URL or NAME: look there for names without a scheme; the same as set base=…"""
        self.set(f"base={HttpFs(self._fetcher, self._url(where)).base}")

    # --- kernels --------------------------------------------------------------------------------------------------

    def load(self, *words: str) -> None:
        """load [kernel|initrd] URL or NAME [DIGEST] | load freebsd [URL or NAME]: a kernel, and what goes with it"""
        match words:
            case ("freebsd",) | ("freebsd", _):
                return self._load_freebsd(words[1] if len(words) > 1 else "")
            case ("kernel" | "initrd", _) | ("kernel" | "initrd", _, _):
                kind, where, digest = words[0], words[1], words[2] if len(words) > 2 else ""
            case (_,) | (_, _):
                kind = "initrd" if any(piece.kind == "kernel" for piece in self._pieces) else "kernel"
                where, digest = words[0], words[1] if len(words) > 1 else ""
            case _:
                raise Wrong(_usage("load"))
        url, body = self._url(where), bytearray()

        def take(data: bytes | memoryview) -> None:
            if len(body) + len(data) > _LARGEST:
                raise Wrong(f"more than {_LARGEST} octets")
            body.extend(data)

        got = self._fetcher.fetch(url, take, digest=digest, progress=self._progress())
        if kind == "kernel":
            self._pieces = [piece for piece in self._pieces if piece.kind != "kernel"]
            self._freebsd = None
        self._pieces.append(_Piece(kind, handoff.File(shown(url), bytes(body), got.sha256 if digest else "")))
        self._say(f"{kind} {shown(url)}: {got.octets} octets, sha256 {got.sha256}")
        return None

    def unload(self, name: str = "") -> None:
        """unload [NAME]: forget what was loaded, or one piece of it"""
        if not name:
            self._pieces, self._freebsd = [], None
            return
        kept = [piece for piece in self._pieces if piece.file.name not in (name, shown(self._url(name)))]
        if len(kept) == len(self._pieces):
            raise Wrong(f"{name} is not loaded")
        self._pieces = kept

    def lsmod(self) -> None:
        """lsmod: what is loaded"""
        if self._freebsd is not None:
            for part in self._freebsd.parts:
                self._say(part.describe())
        for piece in self._pieces:
            self._say(f"{piece.kind} {piece.file.name}: {len(piece.file.data)} octets")

    def boot(self, way: str = "", where: str = "") -> None:
        """boot show | save DIRECTORY | qemu | kexec: say what, write it down, start it in a virtual machine, or here"""
        if way not in _CHOICES["boot"] or (way == "save") != bool(where):
            raise Wrong(_usage("boot"))
        loaded = self._loaded()
        self._say(loaded.describe())
        match way:
            case "show":
                return
            case "save":
                for path in loaded.save(Path(where)):
                    self._say(f"wrote {path}")
            case "qemu":
                with loaded.start_qemu() as guest:
                    guest.wait()
            case _:
                loaded.kexec()
                self._say("starting it")
                machine.start()

    def poweron(self, firmware: str = "uefi") -> None:
        """poweron [FIRMWARE]: be a machine with that firmware; what it would start is loaded"""
        online = self._own("poweron")
        if firmware not in FIRMWARE:
            raise Wrong(f"no firmware is called {firmware}: {', '.join(FIRMWARE)}")
        outcome, files = online.power_on(firmware, self._say)
        if not isinstance(outcome, Booted):
            raise Wrong(f"{outcome.program.url} starts" if isinstance(outcome, Started) else str(outcome))
        images = [("kernel", outcome.kernel), *(("initrd", image) for image in outcome.initrds)]
        self._pieces = [_Piece(kind, handoff.File(shown(at.url or at.name), files[at.sha256])) for kind, at in images]
        self._freebsd = None
        self.settings["cmdline"] = outcome.cmdline

    # --- settings -------------------------------------------------------------------------------------------------

    def set(self, *words: str) -> None:
        """set NAME=VALUE: base, cmdline, proxy, direct, trust, or a name of your own"""
        name, mark, value = " ".join(words).partition("=")
        if not mark:
            name, _, value = name.partition(" ")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", name):
            raise Wrong(_usage("set"))
        if name == "base" and value:
            parse(value)
        self.settings[name] = value
        if name in ("proxy", "direct", "trust"):
            self._fetcher.close()
            self._fetcher = self._new_fetcher()

    def unset(self, name: str) -> None:
        """unset NAME: forget a setting"""
        if name in _SETTINGS:
            self.set(f"{name}=")
        elif self.settings.pop(name, None) is None:
            raise Wrong(f"{name} is not set")

    def show(self, name: str = "") -> None:
        """show [NAME]: settings, and what the network told"""
        values = self._told() | self.settings
        if name and name not in values:
            raise Wrong(f"{name} is not set")
        for one in (name,) if name else sorted(values):
            about = f"    # {_SETTINGS[one]}" if one in _SETTINGS and not name else ""
            self._say(f"{one} = {printable(values[one])}{about}")

    def echo(self, *words: str) -> None:
        """echo WORDS: say them"""
        self._say(" ".join(words))

    def sleep(self, seconds: str) -> None:
        """sleep SECONDS: wait"""
        if self._online is None:
            time.sleep(float(seconds))
        else:
            self._online.stack.wait(lambda: False, float(seconds))

    def help(self, command: str = "") -> None:
        """help [COMMAND]: what there is"""
        if command and command not in _COMMANDS:
            raise Wrong(f"there is no {command}")
        for name in (command,) if command else _COMMANDS:
            usage, _, about = (_COMMANDS[name].__doc__ or "").partition(": ")
            self._say(f"{usage:<34} {about}" if len(usage) <= 34 else f"{usage}\n{'':<34} {about}")

    def exit(self) -> None:
        """exit: leave"""
        self.over = True

    # --- helpers --------------------------------------------------------------------------------------------------

    def _do(self, words: list[str]) -> bool:
        name, *arguments = words
        command = _COMMANDS.get(name)
        try:
            if command is None:
                raise Wrong("there is no such command; help lists all")
            try:
                inspect.signature(command).bind(self, *arguments)
            except TypeError:
                raise Wrong(_usage(name)) from None
            command(self, *arguments)
        except HandoffError as error:
            self._say(f"{name}: {error.because}" + (f"\n  {error.fix}" if error.fix else ""))
        except FetchError as error:
            self._say(f"{name}: {error}")
        except OSError as error:
            about = f"{error.filename}: " if error.filename else ""
            self._say(f"{name}: {about}{error.strerror or error}")
        except (Wrong, ValueError) as error:
            self._say(f"{name}: {error}")
        else:
            return True
        return False

    def _expand(self, word: str) -> str:
        values = self._told() | self.settings
        return re.sub(r"\$\{([A-Za-z][A-Za-z0-9_.-]*)\}", lambda match: values.get(match[1], ""), word)

    def _own(self, what: str) -> Online:
        if self._online is None:
            raise Wrong(f"{what} is for a network card of our own: bootwire console --nic eth0")
        return self._online

    def _new_fetcher(self) -> Fetcher:
        direct = tuple(entry.strip().lower() for entry in self.settings["direct"].split(",") if entry.strip())
        same = self.settings["proxy"] == self._proxies.http  # then https has its own, as the environment says
        proxies = (
            Proxies(self._proxies.http, self._proxies.https, direct)
            if same
            else Proxies.all(self.settings["proxy"], direct)
        )
        return Fetcher(self._transport, Options(proxies=proxies, trust=self.settings["trust"]))

    def _url(self, where: str) -> str:
        """A URL as it is, or a name below the setting `base`."""
        if "://" in where:
            return where
        base = self.settings["base"]
        if not base:
            raise Wrong("no URL, and no base is set: set base=http://…")
        return base if not where else base.rstrip("/") + "/" + where.lstrip("/")

    def _paths(self, word: str) -> list[str]:
        """Names that `word` may become, by the server's listing."""
        above, _, begin = word.rpartition("/")
        with contextlib.suppress(OSError, Wrong):
            entries = HttpFs(self._fetcher, self._url(above)).ls()
            names = (entry.name + ("/" if entry.is_directory else "") for entry in entries)
            return [f"{above}/{name}" if above else name for name in names if name.startswith(begin)]
        return []

    def _told(self) -> dict[str, str]:
        """What the network told, by iPXE's names for it."""
        online = self._online
        if online is None:
            return {}
        told = {"mac": ethernet.mac_text(online.stack.nic.mac)}
        for address, prefix in online.stack.host.addresses:
            told.setdefault("ip6" if len(address) == 16 else "ip", text(address))
            told.setdefault("len6" if len(address) == 16 else "len", str(prefix))
        if online.servers:
            told["dns"] = online.servers[0]
        if (network := online.network) is not None:
            told |= {
                "dhcp-server": network.server, "next-server": network.boot_server, "filename": network.boot_file,
                "root-path": network.root_path, "domain": network.domain, "hostname": network.host_name,
            }  # fmt: skip
        return told

    def _load_freebsd(self, where: str) -> None:
        """Kernel, modules and memory disk of a FreeBSD tree, by its own loader.conf."""
        fs = HttpFs(self._fetcher, self._url(where))
        words = self.settings["cmdline"].split()
        flags = " ".join(word for word in words if word.startswith("-"))
        variables = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("-"))

        def names(path: str) -> list[str]:
            try:
                return [entry.name for entry in fs.ls(path)]
            except (NotADirectoryError, PermissionError) as error:
                raise FileNotFoundError(error.errno, error.strerror, path) from None

        self._freebsd = handoff.load_freebsd(lambda path: fs.cat(path, inflate=False), names, flags, variables)
        self._pieces = []
        self.lsmod()

    def _loaded(self) -> handoff.Loaded:
        if self._freebsd is not None:
            return self._freebsd
        kernels = [piece.file for piece in self._pieces if piece.kind == "kernel"]
        if not kernels:
            raise Wrong("no kernel is loaded: load kernel URL")
        initrds = [piece.file for piece in self._pieces if piece.kind == "initrd"]
        return handoff.load(kernels[0], initrds, self.settings["cmdline"])


_COMMANDS: Final[dict[str, Callable[..., None]]] = {
    name: getattr(Console, name)
    for name in (
        "net", "dhcp", "arp", "route", "ping", "resolve", "fetch", "ls", "cat", "cd", "load", "unload", "lsmod", "boot",
        "poweron",
        "set", "unset", "show", "telnet", "sockets", "stats", "hello", "echo", "sleep", "help", "exit",
    )
}  # fmt: skip


def listed(entries: Iterable[Entry]) -> list[str]:
    """Lines for people: size, moment (UTC), name."""
    lines = []
    for entry in entries:
        size = "" if entry.size is None else str(entry.size)
        moment = "" if entry.modified is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.modified))
        lines.append(f"{size:>12} {moment:<16} {printable(entry.name)}{'/' if entry.is_directory else ''}")
    return lines


def _usage(name: str) -> str:
    return "usage: " + (_COMMANDS[name].__doc__ or "").partition(": ")[0]
