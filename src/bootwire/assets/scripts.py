"""iPXE scripts: the text that tells a machine what to fetch and start.

One writer makes every line (`_line`), because iPXE's grammar has no quotes. What it knows of that grammar
(src/image/script.c, src/core/exec.c and src/core/settings.c of iPXE, the same in 2019 and in 2.0):

* a line ends at LF; a line that ends in a backslash goes on in the next one;
* words end at white space; a word `||`, `&&` or `;` ends a command, a word that begins with `#` starts a comment;
* `${name}` inside a word is replaced after the words were told apart, again and again until none is left, and a
  setting that nobody set is empty. So `${nil}||` is the two characters `||` and no operator, and a line that ends in
  `\\${nil}` does not go on. There is no way to keep `${` itself from being looked up.

Hence: an operator's text may use `${…}` (`ip=${ip}:…` is useful in a kernel command line) and can never become a
second command; a peer's text loses the `$` before `{` as well. White space and control characters are one space.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MARKER = "started"  # name below /boot/<mac>/ that a script asks for last, so that the server sees the hand-over
TRIES = 5  # how often a script tries before it gives the machine back to its firmware
PAUSE = 3  # seconds between two tries
_TEXT = ":uristring"  # the setting's octets as they may stand in a URL (src/core/settings.c)
SMBIOS = {"uuid": "", "serial": _TEXT, "manufacturer": _TEXT, "product": _TEXT}
"""Settings that iPXE reads in the machine's SMBIOS, and how each is written in a URL."""
MAX_MESSAGE_LINES = 24  # of the 25 lines of a text screen


@dataclass(frozen=True, slots=True)
class Caller:
    """What an iPXE said about itself when it asked for a script; "" where it did not say.

    arch      iPXE's `buildarch`: i386 (every BIOS build, too), x86_64, arm32, arm64, riscv32, riscv64, loong64
    platform  iPXE's `platform`: "pcbios" or "efi"
    version   of its User-Agent: "1.0.0+git-20190125.36a4c85-5.1", "2.0.0+dfsg-5"
    """

    arch: str = ""
    platform: str = ""
    version: str = ""

    def __str__(self) -> str:
        return " ".join(word for word in ("iPXE", self.version, self.platform, self.arch) if word)


def caller(query: tuple[tuple[str, str], ...], user_agent: str = "") -> Caller:
    """Read what `script_url` made the machine say, and its User-Agent header ("iPXE/2.0.0").

    The values are a peer's: each is kept only if it looks like one that iPXE sends (at most 64 of a few characters).
    """
    said = dict(reversed(query))  # of a repeated name the first counts
    version = user_agent.removeprefix("iPXE/") if user_agent.startswith("iPXE/") else ""
    words = (said.get("arch", ""), said.get("platform", ""), version)
    return Caller(*(word if _SAID.fullmatch(word) else "" for word in words))


@dataclass(frozen=True, slots=True)
class Boot:
    """What one machine shall start: a kernel and its initrds, from URLs as `boot_url` and others make them.

    marker    what is fetched last: `boot_url(base, machine, MARKER)`
    initrds   in the order in which the kernel shall see them
    cmdline   kernel command line; iPXE looks up `${…}` in it (`${ip}`, `${net0/mac}`); any white space is one space
    message   shown on the machine's screen first; one line each
    syslog    dotted IPv4 address for iPXE's console log (UDP 514), "" for none; builds without syslog ignore it
    """

    kernel: str
    marker: str
    initrds: tuple[str, ...] = ()
    cmdline: str = ""
    message: str = ""
    syslog: str = ""


def boot_script(boot: Boot, platform: str = "") -> bytes:
    """The script that fetches everything, tells the server with the marker, and starts the kernel.

    platform: `Caller.platform`; where it is "pcbios" the kernel is spared the `initrd=` words that an EFI stub needs
    to find its initrds. Total: no text in `boot` can add a command, see the head of this module.
    """
    names = [f"initrd{number}" for number in range(len(boot.initrds))]
    lines = [*_head(boot.syslog), *_say(boot.message), "set tries:int32 0", ":again", "imgfree"]
    lines += _fetch("kernel", "kernel", boot.kernel)
    for name, url in zip(names, boot.initrds, strict=True):
        lines += _fetch("initrd", name, url)
    lines += [
        _line(f"imgfetch --name {MARKER}", (boot.marker,), "||"),
        f"imgfree {MARKER} ||",
        "set step starting the kernel",
    ]
    words = () if platform == "pcbios" else tuple(f"initrd={name}" for name in names)
    lines += [_line("boot kernel", (*words, *_words(boot.cmdline)), "|| goto failed"), "exit"]
    return _script([*lines, *_FAILED])


def autoexec(base: str, machine: str = "", syslog: str = "") -> bytes:
    """The `autoexec.ipxe` that an EFI build of iPXE (2021 and later) asks the loader's own server for.

    It takes an address (nothing is configured when iPXE starts it) and runs the script of `script_url`. Fetching is
    tried again; a boot script that was fetched does its own trying, and when it gives up, so does this one.
    """
    address = "ifconf --configurator dhcp || goto failed"  # plain `dhcp` would wait 10 s for an IPv6 router as well
    lines = ["set tries:int32 0", ":again", "set step getting an address", address, *_head(syslog)]
    lines += ["set step fetching the boot script"]
    lines += [_line("imgfetch --name boot.ipxe", (script_url(base, machine, more=True),), "|| goto failed")]
    return _script([*lines, "chain --autofree boot.ipxe || exit 1", "exit", *_FAILED])


def boot_url(base: str, machine: str, name: str) -> str:
    """Where a machine gets a file of its boot: boot_url("http://192.0.2.1", "52:54:00:12:34:56", "initrd/0").

    Without a MAC the server knows the machine by its address, if at all.
    """
    return f"{base}/boot/{machine.replace(':', '-')}/{name}" if machine else f"{base}/boot/{name}"


def go_on(because: str, syslog: str = "", seconds: int = 3) -> bytes:
    """A script that gives the machine back to its firmware, which goes on with the next boot device: its own disk.

    A BIOS that started iPXE from a boot loader file often has nothing to go on to, so its first disk is tried first.
    """
    lines = [*_head(syslog), *_say(peer_text(f"Bootwire: {because}")), f"sleep {seconds} ||"]
    return _script([*lines, "iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||", "exit 1"])


def tell_more(base: str, machine: str = "") -> bytes:
    """A script that comes back for the boot script with what only SMBIOS tells: uuid, serial, manufacturer, product."""
    return _script([_line("chain --replace --autofree", (script_url(base, machine, more=True),), "|| exit 1")])


def script_url(base: str, machine: str = "", more: bool = False) -> str:
    """Where a machine gets its script. iPXE itself fills in its build and, without `machine` (a MAC), its own MAC.

    Good in a script and as a DHCP boot file name, for iPXE looks up `${…}` in both. At most 103 octets with an IPv4
    base, so that it fits the 128 of the DHCP file field (RFC 2131 section 2). The version is in iPXE's User-Agent.
    more: with what SMBIOS tells, which makes it longer than that.
    """
    who = machine.replace(":", "-") or "${netX/mac:hexhyp}"
    smbios = "".join(f"&{name}=${{{name}{as_text}}}" for name, as_text in SMBIOS.items()) if more else ""
    return f"{base}/boot.ipxe?mac={who}&arch=${{buildarch}}&platform=${{platform}}{smbios}"


def apology(because: str, syslog: str = "", seconds: int = 30) -> bytes:
    """A script that says on the machine's screen why it will not boot, waits, and gives the machine back."""
    lines = [*_head(syslog), *_say(peer_text(f"Bootwire does not boot this machine: {because}"))]
    return _script([*lines, f"sleep {seconds} ||", "exit 1"])


def mismatch(architectures: tuple[str, ...], who: Caller) -> str:
    """Why a kernel for `architectures` cannot run where `who` runs: a sentence, or "" if it can or nobody knows.

    architectures: as in `kernels.Kernel.architectures`. A BIOS build says i386 on every PC, so there both i386 and
    x86_64 are fine; EFI firmware starts kernels of its own architecture only.
    """
    if not architectures or not who.arch:
        return ""
    runs = ("i386", "x86_64") if who.platform == "pcbios" else (who.arch,)
    if any(name in runs for name in architectures):
        return ""
    machine = "a BIOS PC" if who.platform == "pcbios" else f"{who.arch} EFI firmware"
    return f"the kernel is for {' or '.join(architectures)}, this machine is {machine}"


def peer_text(text: str) -> str:
    """Text of a peer, made fit to stand in a script: printable ASCII, at most 256 characters, nothing looked up."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text[:256])
    return re.sub(r"\$+\{", "{", plain)


def check_text(text: str, what: str) -> str:
    """Why an operator's text (`what`: "the command line") should be refused at start: a sentence, or ""."""
    bad = next((c for c in text if ord(c) < 0x20 or ord(c) == 0x7F), "")
    if bad:
        return f"{what} has the control character {bad!r}: write it as one line of text"
    if text.count("${") != len(re.findall(r"\$\{[^${}\s]*\}", text)):
        return f"{what} has a ${{ that is no iPXE setting such as ${{ip}}: close it, or leave out the $"
    return ""


_SAID = re.compile(r"[A-Za-z0-9._+~()-]{1,64}")
_OPERATORS = ("||", "&&", ";")
_NIL = "${nil}"  # a setting that nobody sets
_FAILED = (  # what a script ends in: say what failed, try again, and at last give up
    ":failed",
    "echo Bootwire: ${step} failed: ${errno}",
    "inc tries",
    f"iseq ${{tries}} {TRIES} && goto stop ||",
    f"echo Bootwire: trying again in {PAUSE} seconds, Ctrl-C stops",
    f"sleep {PAUSE} || goto stop",
    "goto again",
    ":stop",
    "echo Bootwire: gives up, the firmware goes on",
    f"sleep {PAUSE} ||",
    "imgfree",
    "exit 1",
)


def _line(command: str, words: tuple[str, ...] = (), after: str = "") -> str:
    """One script line: `command` and `after` are ours, `words` are data and stay data."""
    safe = []
    for text in words:
        word = "".join(_words(text))
        safe.append(_NIL + word if word in _OPERATORS or word.startswith("#") else word)
    if safe and safe[-1].endswith("\\"):
        safe[-1] += _NIL
    return " ".join(part for part in (command, *safe, after) if part)


def _words(text: str) -> tuple[str, ...]:
    """White space and control characters only part words; what UTF-8 cannot carry becomes a question mark."""
    spaced = "".join(" " if ord(c) < 0x20 or ord(c) == 0x7F else c for c in text)
    return tuple(spaced.encode("utf-8", "replace").decode().split())


def _say(text: str) -> list[str]:
    lines = re.split(r"\r\n|\r|\n", text)[:MAX_MESSAGE_LINES] if text.strip() else []
    return [_line("echo --", _words(line)) for line in lines]  # `--`: a word that begins with a dash is no option


def _head(syslog: str) -> list[str]:
    return [_line("set syslog", (syslog,), "||")] if syslog else []


def _fetch(command: str, name: str, url: str) -> list[str]:
    return [f"set step fetching {name}", _line(f"{command} --name {name}", (url,), "|| goto failed")]


def _script(lines: list[str]) -> bytes:
    return "\n".join(["#!ipxe", *lines, ""]).encode()
