"""Where this machine gets its packages: apt's own configuration, read without root and without changing anything.

Formats: sources.list(5) in both styles, apt.conf(5) as `apt-config dump` prints it. Only http and https mirrors are
of use here; `mirror+file:` lists (Debian's cloud images) are followed to their first http entry.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

KEYRINGS = (  # where distributions install their archive keys; the newer suffix since Debian 13
    "usr/share/keyrings/debian-archive-keyring.gpg",
    "usr/share/keyrings/debian-archive-keyring.pgp",
    "usr/share/keyrings/ubuntu-archive-keyring.gpg",
)
_T = TypeVar("_T")
_CODENAMES = ("VERSION_CODENAME", "UBUNTU_CODENAME", "DEBIAN_CODENAME")  # os-release(5); the latter in derivatives
_ROLLING = ("stable", "testing", "unstable", "sid", "oldstable", "devel")  # suite names that are no codename


@dataclass(frozen=True, slots=True)
class Mirror:
    """One base address ("http://host/debian", no slash at the end) and what apt knows about it.

    keyrings: files with the keys that may sign its suites, binary (.gpg) or armoured (.asc)
    keys: armoured keys that stand in the source entry itself
    """

    base: str
    suites: tuple[str, ...] = ()
    components: tuple[str, ...] = ("main",)
    keyrings: tuple[Path, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Apt:
    """mirrors: of the distribution itself, best first; proxies: as urllib wants them, by scheme; direct: hosts that
    apt reaches without a proxy."""

    mirrors: tuple[Mirror, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict)
    direct: frozenset[str] = frozenset()


def read(root: Path = Path("/"), dump: str | None = None) -> Apt:
    """Read the configuration below `root`. dump: what `apt-config dump` prints, None: ask it if it is there.

    Without any apt (other distributions) there are no mirrors; unreadable files are passed over.
    """
    release = _os_release(root)
    known = {*_ROLLING, *(release.get(name, "") for name in _CODENAMES)} - {""}
    entries = list(_entries(root))
    own = [one for one in entries if any(suite in known or suite.split("-")[0] in known for suite in one.suites)]
    proxies, direct = _proxies(_dump() if dump is None else dump)
    return Apt(tuple(_merged(own or entries)), proxies, direct)


def named(base: str, root: Path = Path("/")) -> Mirror:
    """A mirror that the operator named, with every keyring of this machine's distributions."""
    return Mirror(base.rstrip("/"), keyrings=_default_keyrings(root))


def _os_release(root: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in _text(root / "etc/os-release").splitlines())
    return {name: value.strip("\"'") for name, _, value in pairs}


def _entries(root: Path) -> Iterator[Mirror]:
    apt = root / "etc/apt"
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for path in files:
        if path.suffix == ".list":
            yield from _one_line_style(_text(path), root)
        elif path.suffix == ".sources":
            yield from _deb822_style(_text(path), root)


def _one_line_style(text: str, root: Path) -> Iterator[Mirror]:
    for line in text.splitlines():
        found = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if not found:
            continue
        options = dict(option.partition("=")[::2] for option in (found[1] or "").split())
        signed = options.get("signed-by", "").split(",")
        yield from _mirrors([found[2]], [found[3]], found[4].split(), signed, (), root)


def _deb822_style(text: str, root: Path) -> Iterator[Mirror]:
    for stanza in re.split(r"\n[ \t]*\n", "\n".join(line for line in text.splitlines() if not line.startswith("#"))):
        fields = parse_stanza(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        signed = fields.get("signed-by", "")
        armoured = "BEGIN PGP" in signed
        keys = ("\n".join("" if line.strip() == "." else line.strip() for line in signed.splitlines()),)
        yield from _mirrors(
            fields.get("uris", "").split(),
            fields.get("suites", "").split(),
            fields.get("components", "").split(),
            [] if armoured else signed.split(),
            keys if armoured else (),
            root,
        )


def parse_stanza(text: str) -> dict[str, str]:
    """Fields of one paragraph (deb822(5)), names in lower case; continuation lines keep their line ends."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line[:1] in (" ", "\t") and name:
            fields[name] += "\n" + line[1:]
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _mirrors(
    uris: Iterable[str],
    suites: list[str],
    components: list[str],
    signed: Iterable[str],
    keys: tuple[str, ...],
    root: Path,
) -> Iterator[Mirror]:
    keyrings = tuple(root / name.lstrip("/") for name in signed if name.startswith("/"))
    for uri in uris:
        base = _http(uri, root)
        if base and not any(suite.endswith("/") for suite in suites):  # flat archives have no suites
            trusted = keyrings if keyrings or keys else _default_keyrings(root)
            yield Mirror(base, tuple(suites), tuple(components), trusted, keys)


def _http(uri: str, root: Path) -> str:
    """The http or https address behind a URI of a source entry, "" if there is none."""
    if uri.startswith("mirror+file:"):
        lines = _text(root / uri.removeprefix("mirror+file:").lstrip("/")).splitlines()
        uri = next((line.split()[0] for line in lines if line.startswith(("http://", "https://"))), "")
    return uri.rstrip("/") if uri.startswith(("http://", "https://")) else ""


def _merged(mirrors: Iterable[Mirror]) -> Iterator[Mirror]:
    """One for each base address, in order of first sight, with all its suites and keys; archives of updates last."""
    found: dict[str, Mirror] = {}
    for one in mirrors:
        seen = found.get(one.base, Mirror(one.base, (), ()))
        found[one.base] = Mirror(
            one.base,
            _joined(seen.suites, one.suites),
            _joined(seen.components, one.components),
            _joined(seen.keyrings, one.keyrings),
            _joined(seen.keys, one.keys),
        )
    yield from sorted(found.values(), key=lambda mirror: all("-" in suite for suite in mirror.suites))


def _joined(first: tuple[_T, ...], second: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(first + second))


def _default_keyrings(root: Path) -> tuple[Path, ...]:
    parts = sorted((root / "etc/apt/trusted.gpg.d").glob("*"))
    found = [root / name for name in KEYRINGS] + [path for path in parts if path.suffix in (".gpg", ".asc")]
    return tuple(path for path in found if path.is_file())


def _dump() -> str:
    if not shutil.which("apt-config"):
        return ""
    try:
        return subprocess.run(["apt-config", "dump"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _proxies(dump: str) -> tuple[dict[str, str], frozenset[str]]:
    """apt's proxies by scheme; where apt names none, those of the environment. https uses http's, as apt does."""
    proxies = urllib.request.getproxies()
    proxies = {scheme: proxies[scheme] for scheme in ("http", "https") if scheme in proxies}
    direct = set()
    for line in dump.splitlines():
        found = re.match(r"Acquire::(http|https)::Proxy(?:::(\S+))? (\".*\");$", line)
        if not found:
            continue
        value = "".join(shlex.split(found[3]))
        if found[2]:
            if value.upper() == "DIRECT":
                direct.add(found[2])
        elif value.upper() == "DIRECT":
            proxies.pop(found[1], None)
        elif value:
            proxies[found[1]] = value
            if found[1] == "http":
                proxies.setdefault("https", value)
    return proxies, frozenset(direct)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
