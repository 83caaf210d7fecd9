"""iPXE's command interpreter, as far as scripts of real servers use it.

Sources: ipxe src/image/script.c (lines, labels, goto), src/core/exec.c (words, operators), src/core/settings.c (names,
types, expansion), src/hci/commands/*.c (what each command takes), src/usr/{imgmgmt,autoboot}.c.
A command that is not understood fails as a missing one does in iPXE, and is remembered in `not_understood`.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bootwire.engine import MS, S
from bootwire.engine import dhcp_client as dhcp
from bootwire.preboot.personas import pxe
from bootwire.preboot.personas.steps import (
    Booted,
    Fetched,
    HttpGet,
    Image,
    Machine,
    NotFetched,
    Outcome,
    Started,
    Steps,
    Stopped,
    TftpGet,
    doubling,
    fetch,
    pause,
    show,
)
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message

if TYPE_CHECKING:
    from bootwire.preboot.personas.ipxe import Build

MAX_COMMANDS = 10_000  # of one boot: a script that loops for ever ends here
MAX_DEPTH = 16  # scripts that chain scripts
MAX_TEXT = 64 * 1024  # characters that one word may grow to
MAX_IMAGES = 256

TFTP_WAITS = doubling(250 * MS, 8 * S, 6)  # net/retry.c: a quarter of a second, doubling to ten at most
REDIRECTS = 16  # httpcore.c follows them without end
HTTP_IDLE = 120 * S  # HTTP_WATCHDOG_SECONDS, config/http.h

Result = Outcome | str
"""How a command, a script or an image ended: "" is success, other text the error; an Outcome ends everything."""


class Settings:
    """What `${…}` looks up: the user's own, then what DHCP and the proxy said, then the machine's."""

    def __init__(self, machine: Machine, firmware: Build) -> None:
        self._machine = machine
        self._firmware = firmware
        self._user: dict[str, str] = {}
        self._blocks: dict[str, Message] = {}
        self.address: tuple[str, str, str] = ("", "", "")
        self.cwuri = ""
        self.errno = ""

    def remember(self, block: str, message: Message) -> None:
        """block: "dhcp", "proxydhcp", "pxebs", "cached"."""
        self._blocks[block] = message

    def forget(self, block: str) -> None:
        self._blocks.pop(block, None)

    def message(self, block: str) -> Message | None:
        return self._blocks.get(block)

    def override(self, name: str) -> bytes:
        return self._user.get(name, "").encode()

    def vendor_class(self) -> bytes:
        """What is sent as option 60 instead of iPXE's own: a setting of that name, be it the user's or out of what
        the firmware had cached ("PXEClient")."""
        found = self.override("vendor-class")
        for block in ("cached", "proxydhcp"):
            message = self._blocks.get(block)
            found = found or (message.option(dhcp4.VENDOR_CLASS) if message else None) or b""
        return found

    def set(self, name: str, value: str) -> None:
        self._user[name.rpartition("/")[2].partition(":")[0]] = value

    def clear(self, name: str) -> None:
        self._user.pop(name.rpartition("/")[2].partition(":")[0], None)

    def boot_file(self) -> tuple[str, str]:
        """(next-server, filename) out of one block: the boot server's, DHCP's, the proxy's (fetch_next_server_and_
        filename); a filename that was set by hand goes with whatever next-server there is."""
        if "filename" in self._user:
            return self.get("next-server"), self._user["filename"]
        for block in ("pxebs", "dhcp", "proxydhcp"):
            message = self._blocks.get(block)
            if message is not None and message.boot_file:
                return message.siaddr, message.boot_file.decode("utf-8", "replace")
        return "", ""

    def expand(self, word: str) -> str:
        """`${name}` and `${scope/name:type}`, innermost first, again and again until none is left."""
        while len(word) <= MAX_TEXT:
            end = word.find("}")
            while end >= 0 and "${" not in word[:end]:
                end = word.find("}", end + 1)
            if end < 0:
                return word
            start = word.rindex("${", 0, end)
            word = word[:start] + self.get(word[start + 2 : end]) + word[end + 1 :]
        return word[:MAX_TEXT]

    def get(self, name: str) -> str:
        scope, _, rest = name.rpartition("/")
        rest, _, kind = rest.partition(":")
        if not scope and rest in self._user:
            return _format(self._user[rest].encode(), kind or "string")
        raw, natural = self._fetch(scope.lower(), rest)
        return _format(raw, kind or natural) if raw else ""

    def _fetch(self, scope: str, name: str) -> tuple[bytes, str]:
        block = scope.rpartition(".")[2] if "." in scope else scope
        if block in ("", "net0", "netx"):
            own = self._own(name)
            if own[0]:
                return own
            blocks = ("pxebs", "dhcp", "proxydhcp", "cached") if block == "" else ("dhcp",)
        else:
            blocks = (block,)
        for key in blocks:
            message = self._blocks.get(key)
            if message is not None and (found := _of_message(message, name))[0]:
                return found
        return b"", "string"

    def _own(self, name: str) -> tuple[bytes, str]:
        machine, firmware = self._machine, self._firmware
        ip, mask, router = self.address
        texts = {"platform": firmware.platform, "buildarch": firmware.buildarch, "version": firmware.version,
                 "cwuri": self.cwuri, "errno": self.errno, "ifname": "net0", "bustype": "PCI",
                 "cwduri": self.cwuri.rpartition("/")[0] + "/" if self.cwuri else ""}  # fmt: skip
        if name in texts:
            return texts[name].encode(), "string"
        if name == "mac":
            return machine.mac, "hex"
        if name == "uuid" and machine.uuid:
            return machine.uuid, "guid"
        addresses = {"ip": ip, "netmask": mask, "gateway": router}
        if addresses.get(name):
            return dhcp4.packed(addresses[name]), "ipv4"
        return b"", "string"


class Runner:
    """Runs commands for one iPXE.

    obtain  what `dhcp` does: fills the settings, says whether it got an address
    """

    def __init__(
        self, machine: Machine, firmware: Build, obtain: Callable[[Settings], Steps[bool]], cwuri: str = ""
    ) -> None:
        self.settings = Settings(machine, firmware)
        self.settings.cwuri = cwuri
        self.images: list[Image] = []
        self.not_understood: list[str] = []
        self._arguments: dict[str, str] = {}
        self._machine = machine
        self._firmware = firmware
        self._obtain = obtain
        self._selected = ""
        self._commands = 0
        self._depth = 0
        self._menu: list[tuple[str, str]] = []

    def dhcp(self) -> Steps[bool]:
        return (yield from self._obtain(self.settings))

    def netboot(self) -> Steps[Result]:
        """Fetch and run what DHCP names (netboot() and uriboot(), autoboot.c)."""
        server, name = self.settings.boot_file()
        if not name:
            return "Nothing to boot: no filename"
        uri = name if _SCHEME.match(name) else f"tftp://{server}/{name.lstrip('/')}"
        yield from show(f"Next server: {server}  Filename: {name}")
        got = yield from self.fetch_uri(self.settings.expand(uri))
        if isinstance(got, str):
            return got
        return (yield from self.execute(got))

    def fetch_uri(self, uri: str, name: str = "") -> Steps[Image | str]:
        """An image, registered under its --name or the last part of its URI; or why it could not be had."""
        try:
            uri = resolve(self.settings.cwuri, uri)
            parts = urllib.parse.urlsplit(uri)
        except ValueError:  # "http://[::/"
            return f"Invalid argument: {uri}"
        scheme = uri.partition(":")[0].lower()
        wanted: TftpGet | HttpGet
        if scheme == "http":
            agent = f"iPXE/{self._firmware.version}"
            wanted = HttpGet(
                uri,
                (("Connection", "keep-alive"), ("User-Agent", agent), ("Host", parts.netloc)),
                redirects=REDIRECTS,
                idle=HTTP_IDLE,
            )
        elif scheme == "tftp":
            path = urllib.parse.unquote_to_bytes(parts.path.lstrip("/"))
            wanted = TftpGet(parts.hostname or "", path, ((b"blksize", b"1432"), (b"tsize", b"0")), TFTP_WAITS)
        else:
            return f"Operation not supported: {uri}"
        if len(self.images) >= MAX_IMAGES:
            return "Out of space"
        yield from show(f"{uri}...")
        got = yield from fetch(self._machine, wanted)
        if isinstance(got, NotFetched):
            return _error(uri, got)
        if got.status >= 300:
            return _error(uri, NotFetched("status", got.status))
        found = _image(name, uri, got)
        self.images.append(found)
        return found

    def execute(self, image: Image, arguments: str = "") -> Steps[Result]:
        """Run an image: a script line by line, a kernel or a program as the end of everything."""
        if image.data.startswith((b"#!ipxe", b"#!gpxe")):
            return (yield from self._script(image))
        if pxe.is_linux(image.data):
            machine_type = pxe.pe_machine(image.data)
            if self._firmware.platform == "efi" and machine_type != pxe.PE_MACHINES[self._firmware.arch]:
                return "Exec format error: a kernel for another processor"
            others = tuple(other for other in self.images if other is not image)
            return Booted(image, others, self._arguments.get(image.name, "") or arguments)
        is_efi = pxe.pe_machine(image.data) is not None
        if is_efi != (self._firmware.platform == "efi"):
            return "Exec format error"
        return Started(image)

    def _script(self, image: Image) -> Steps[Result]:
        if self._depth == MAX_DEPTH:
            return f"scripts chain scripts, {MAX_DEPTH} deep"
        if image in self.images:
            self.images.remove(image)  # script_exec: a running script is no image, lest it become an initrd
        before, self.settings.cwuri = self.settings.cwuri, image.url
        self._depth += 1
        result = yield from self._lines(_joined(image.data))
        self._depth -= 1
        self.settings.cwuri = before
        if all(image is not other for other in self.images):
            self.images.append(image)
        return result

    def _lines(self, lines: list[str]) -> Steps[Result]:
        at = 0
        while at < len(lines):
            line = lines[at].strip()
            at += 1
            if line.startswith(":"):
                continue
            result = yield from self.line(line)
            if isinstance(result, _Exit):
                return "" if result.status == 0 else f"the script gave up (exit {result.status})"
            if isinstance(result, _Goto):
                label = ":" + result.label
                at = next((n for n, text in enumerate(lines) if text.split()[:1] == [label]), -1)
                if at < 0:
                    return f"No such label: {result.label}"
            elif result != "":
                return result
        return ""

    def line(self, text: str) -> Steps[Result | _Exit | _Goto]:
        """One line: commands joined by `||`, `&&` and `;` (system(), exec.c)."""
        words: list[str] = []
        for word in text.split():
            if word.startswith("#"):
                break
            words.append(word)
        result: Result = ""
        process, start = True, 0
        for at in range(len(words) + 1):
            operator = words[at] if at < len(words) else ";"
            if operator not in ("||", "&&", ";"):
                continue
            command, start = words[start:at], at + 1
            if process and not command:
                result = ""  # an empty command always succeeds (execv, exec.c): `iseq a b && goto x ||`
            elif process:
                done = yield from self._command(command)
                if not isinstance(done, str):
                    return done
                result = done
                if done:
                    self.settings.errno = done
            process = {"||": result != "", "&&": result == "", ";": True}[operator]
        return result

    def _command(self, command: list[str]) -> Steps[Result | _Exit | _Goto]:
        self._commands += 1
        if self._commands > MAX_COMMANDS:
            return Stopped("", f"a script ran {MAX_COMMANDS} commands and did not end")
        name, *words = (self.settings.expand(word) for word in command)
        match name:
            case "goto" if words:
                return _Goto(words[0])
            case "exit":
                return _Exit(_number(words[0]) if words else 0)
            case "echo":
                yield from show(" ".join(words[1:] if words[:1] in (["-n"], ["--"]) else words))
            case "set" if words:
                if len(words) > 1:
                    self.settings.set(words[0], " ".join(words[1:]))
                else:
                    self.settings.clear(words[0])
            case "clear" if words:
                self.settings.clear(words[0])
            case "inc" if words:
                step = _number(words[1]) if len(words) > 1 else 1
                self.settings.set(words[0], str(_number(self.settings.get(words[0])) + step))
            case "isset":
                return "" if any(words) else "No such file or directory"
            case "iseq" if len(words) == 2:
                return "" if words[0] == words[1] else "Not equal"
            case "show" if words:
                yield from show(f"{words[0]} = {self.settings.get(words[0])}")
            case "sleep" if words:
                yield from pause(self._machine, _number(words[0]) * S)
            case "prompt":
                wait = _option(words, "--timeout", "-t")
                yield from pause(self._machine, _number(wait) * MS)
                return "Operation canceled: nobody pressed a key"
            case "dhcp" | "ifconf" | "autoboot":
                if not (yield from self.dhcp()):
                    return "No configuration methods succeeded"
                if name == "autoboot":
                    return (yield from self.netboot())
            case "kernel" | "imgselect" | "initrd" | "imgfetch" | "module" | "chain" | "boot" | "imgexec" | "imgload":
                return (yield from self._image_command(name, words))
            case "imgfree":
                return self._free(words)
            case "imgargs" if words:
                found = self._find(words[0])
                if found is None:
                    return f"No such image: {words[0]}"
                self._arguments[found.name] = " ".join(words[1:])
            case "menu":
                self._menu = []
            case "item":
                self._add_item(words)
            case "choose":
                return self._choose(words)
            case "shell":
                return Stopped("", "iPXE shell: waits for somebody to type")
            case "reboot" | "poweroff":
                return Stopped("", f"the script said {name}")
            case _ if name in _IGNORED:
                pass
            case _:
                self.not_understood.append(" ".join([name, *words])[:256])
                yield from show(f"{name}: command not found")
                return "Exec format error: command not found"
        return ""

    def _image_command(self, name: str, words: list[str]) -> Steps[Result]:
        """kernel and initrd fetch; chain, boot and imgexec fetch what is no image yet, and run it."""
        words = list(words)
        named = _option(words, "--name", "-n")
        for flag in ("--autofree", "-a", "--replace", "-r"):
            if flag in words:
                words.remove(flag)
        _option(words, "--timeout", "-t")
        if words[:1] == ["--"]:
            words.pop(0)
        what, arguments = (words[0] if words else ""), " ".join(words[1:])
        runs = name in ("chain", "boot", "imgexec")
        image = self._find(what or self._selected) if runs or name in ("imgselect", "imgload") or not what else None
        if image is None:
            if not what:
                return "No such file or directory: no image"
            got = yield from self.fetch_uri(what, named)
            if isinstance(got, str):
                return got
            image = got
        if arguments or not runs:
            self._arguments[image.name] = arguments
        if name in ("kernel", "imgselect", "imgload"):
            self._selected = image.name
        if runs:
            return (yield from self.execute(image, arguments))
        return ""

    def _find(self, name: str) -> Image | None:
        return next((image for image in self.images if image.name == name), None)

    def _free(self, words: list[str]) -> str:
        if not words:
            self.images.clear()
            return ""
        for word in words:
            found = self._find(word)
            if found is None:
                return f"No such image: {word}"
            self.images.remove(found)
        return ""

    def _add_item(self, words: list[str]) -> None:
        words = list(words)
        for name in ("--key", "-k", "--menu", "-m"):
            _option(words, name, name)
        gap = "--gap" in words or "-g" in words
        words = [word for word in words if word not in ("--gap", "-g", "--default", "-d", "--")]
        if words and not gap and len(self._menu) < MAX_IMAGES:
            self._menu.append((words[0], " ".join(words[1:])))

    def _choose(self, words: list[str]) -> str:
        """With nobody at the keyboard: the default, else the first item."""
        words = list(words)
        default = _option(words, "--default", "-d")
        for name in ("--timeout", "-t", "--menu", "-m"):
            _option(words, name, name)
        words = [word for word in words if not word.startswith("-")]
        labels = [label for label, _ in self._menu]
        if not words or not labels:
            return "No such file or directory: an empty menu"
        self.settings.set(words[0], default if default in labels else labels[0])
        return ""


_IGNORED = frozenset(
    ("ifopen", "ifclose", "ifstat", "iflinkwait", "route", "nstat", "ipstat", "imgstat", "console", "colour", "cpair",
     "sync", "ntp", "cpuid", "config", "login", "nslookup", "#", "help", "imgtrust")
)  # fmt: skip
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True)
class _Exit:
    status: int


@dataclass(frozen=True, slots=True)
class _Goto:
    label: str


def resolve(base: str, uri: str) -> str:
    """An absolute URI as it is; another one relative to `base` (resolve_uri, core/uri.c)."""
    if _SCHEME.match(uri) or not base:
        return uri
    scheme, rest = base.split("://", 1)
    return scheme + urllib.parse.urljoin("http://" + rest, uri)[4:]


def _joined(data: bytes) -> list[str]:
    """Lines, with those that end in a backslash joined to the next."""
    text = data.decode("utf-8", "replace").replace("\\\n", "")
    return [line for line in text.split("\n") if not line.startswith(("#!ipxe", "#!gpxe"))]


def _option(words: list[str], long: str, short: str) -> str:
    """Take an option and its value out of `words`."""
    for at, word in enumerate(words):
        if word in (long, short) and at + 1 < len(words):
            value = words[at + 1]
            del words[at : at + 2]
            return value
        if word.startswith(long + "="):
            del words[at]
            return word.partition("=")[2]
        if word == "--":
            break
    return ""


def _number(text: str) -> int:
    """As strtoul with base 0; what is no number is 0."""
    try:
        return int(text, 0)
    except ValueError:
        return int(text) if text.isdecimal() and len(text) < 20 else 0


def _image(name: str, uri: str, got: Fetched) -> Image:
    last = urllib.parse.unquote(urllib.parse.urlsplit(uri).path.rsplit("/", 1)[-1])
    return Image(name or last, uri, got.octets, got.sha256, got.data)


def _error(uri: str, failure: NotFetched) -> str:
    match failure.why:
        case "timeout":
            return f"Connection timed out: {uri}"
        case "unreachable":
            return f"Connection refused: {uri}"
        case "status" if failure.code == 404:
            return f"No such file or directory: {uri}"
        case "status" if failure.code in (401, 403):
            return f"Permission denied: {uri}"
        case "error" if failure.code == 1:
            return f"No such file or directory: {uri}"
        case "error":
            return f"Error from the server ({failure.code} {failure.text}): {uri}"
        case _:
            return f"Input/output error ({failure.why} {failure.code} {failure.text}): {uri}"


_NAMES = {
    "netmask": (1, "ipv4"), "gateway": (3, "ipv4"), "dns": (6, "ipv4"), "log-server": (7, "ipv4"),
    "syslog": (7, "ipv4"), "hostname": (12, "string"), "domain": (15, "string"), "root-path": (17, "string"),
    "mtu": (26, "uint16"), "ntp": (42, "ipv4"), "dhcp-server": (54, "ipv4"), "vendor-class": (60, "string"),
    "user-class": (77, "string"),
}  # fmt: skip


def _of_message(message: Message, name: str) -> tuple[bytes, str]:
    match name:
        case "filename":
            return message.boot_file, "string"
        case "next-server":
            return (dhcp4.packed(message.siaddr) if message.siaddr != dhcp.ANY else b""), "ipv4"
        case "ip":
            return (dhcp4.packed(message.yiaddr) if message.yiaddr != dhcp.ANY else b""), "ipv4"
        case _ if name.isdecimal() and len(name) < 4:
            return message.option(int(name)) or b"", "hex"
        case _:
            pass
    code, kind = _NAMES.get(name, (0, "string"))
    return message.option(code) or b"", kind


def _format(raw: bytes, kind: str) -> str:
    """The settings types of settings.c."""
    match kind:
        case "hex":
            return raw.hex(":")
        case "hexhyp":
            return raw.hex("-")
        case "hexraw":
            return raw.hex()
        case "ipv4" | "ip" if len(raw) >= 4:
            return ".".join(map(str, raw[:4]))
        case "uristring":
            return urllib.parse.quote(raw, safe="")
        case "guid" | "uuid" if len(raw) == 16:
            return dhcp4.machine_uuid(b"\0" + raw)
        case "int8" | "int16" | "int32" | "uint8" | "uint16" | "uint32":
            text = raw.decode("ascii", "replace")
            if text.lstrip("-").isdecimal():
                return text
            return str(int.from_bytes(raw, "big", signed=kind.startswith("int")))
        case _:
            pass
    return raw.decode("utf-8", "replace")
