"""The fleet file: TOML text into a Fleet, or everything that is wrong with it, each with its line and what to do.

What each key means: docs/reference/fleet-file.md. Pure: files and images are read by the edge (serve/fleet.py).
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

import msgspec

from bootwire.policy.rules import KEYS, BadPattern, Condition, Rule, condition, mac_prefix, subnet_condition
from bootwire.wire import bootinfo_text

MAX_TEXT = 16 << 20
"""Octets of a fleet file: some 100,000 machines."""

MENU_ENTRIES = 8
"""Entries of a menu: what fits into option 43 with their titles (255 octets)."""

Names = str | list[str]
Values = str | int | list[str | int]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. file: as the operator named it; line: from 1, 0 where nobody knows."""

    file: str
    line: int
    what: str
    fix: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.what}" + (f"\n    {self.fix}" if self.fix else "")


class ImageEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An image with what it must be: a digest, a detached signature by one of `keys` (a file)."""

    location: str
    sha256: str = ""
    signature: str = ""
    keys: str = ""


class MenuEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of a boot menu: a profile, and what it is called there."""

    profile: str
    title: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What can be booted. One of kernel, script, script-file, local, or bootinfo alone."""

    kernel: str | ImageEntry | None = None
    initrd: str | ImageEntry | list[str | ImageEntry] = msgspec.field(default_factory=list)
    cmdline: str = ""
    message: str = ""
    script: str = ""
    script_file: str = ""
    local: bool = False
    menu: list[str | MenuEntry] = msgspec.field(default_factory=list)
    prompt: str = "Press F8 to choose"
    seconds: int = 10
    discovery: Literal["unicast", "broadcast", "multicast"] = "unicast"
    loader: Literal["auto", "ipxe", "pxelinux"] = "auto"
    program: str = ""
    bootinfo: str = ""
    install: bool = False
    done: Literal["phone-home", "hand-over"] = "phone-home"
    documents: dict[str, str] = msgspec.field(default_factory=dict)
    files: dict[str, str | ImageEntry] = msgspec.field(default_factory=dict)
    secrets: dict[str, str] = msgspec.field(default_factory=dict)
    variables: dict[str, Any] = msgspec.field(default_factory=dict)


class Network(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """A place in the network, for conditions and variables."""

    subnet: Names
    variables: dict[str, Any] = msgspec.field(default_factory=dict)


class Entry(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """A machine or a group."""

    name: str = ""
    mac: Names | None = None
    uuid: Names | None = None
    serial: Names | None = None
    match: dict[str, Values] = msgspec.field(default_factory=dict)
    profile: str = ""
    variables: dict[str, Any] = msgspec.field(default_factory=dict)


class ServerEntry(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """[server]: as the options of the same names; those count more."""

    interface: Names | None = None
    http_port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] | None = None
    mode: Literal["proxy", "off"] | None = None
    files: str | None = None
    state_dir: str | None = None
    loaders: str | None = None
    tftp_single_port: bool | None = None
    bootinfo: bool | None = None
    bootinfo_answer: str | None = None
    bootinfo_keys: str | None = None
    bootinfo_demand_keys: bool | None = None
    cache: bool | None = None
    cache_dir: str | None = None
    cache_size: Annotated[float, msgspec.Meta(ge=0.001)] | None = None
    offline: bool | None = None
    upstream_proxy: str | None = None
    upstream_ca: str | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet file without a fault. lines: of profiles, by name."""

    name: str
    profiles: Mapping[str, Profile]
    networks: Mapping[str, Network]
    rules: tuple[Rule, ...]
    variables: Mapping[str, object]
    server: ServerEntry
    lines: Mapping[str, int] = field(default_factory=dict)


def read(text: str, name: str) -> Fleet | list[Problem]:
    """The fleet that `text` describes, or all that is wrong with it. name: of the file, for messages."""
    if len(text) > MAX_TEXT:
        return [Problem(name, 0, f"longer than {MAX_TEXT >> 20} MiB", "split the fleet")]
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", str(error))
        what, line = (said[1], int(said[2])) if said else (str(error), text.count("\n") + 1)
        return [
            Problem(name, line, f"this is no TOML: {what[:1].lower()}{what[1:]}", "look at the line, and the one above")
        ]
    except RecursionError:
        return [Problem(name, 0, "nested too deeply")]
    return _Reader(raw, _positions(text), name).fleet()


# --- reading ------------------------------------------------------------------------------------------------------

_TOP = ("server", "variables", "networks", "profiles", "group", "machine")


class _Reader:
    """One pass over the file's tables; problems gather on the way."""

    def __init__(self, raw: dict[str, Any], lines: Mapping[tuple[str | int, ...], int], name: str) -> None:
        self._raw = raw
        self._lines = lines
        self._name = name
        self._problems: list[Problem] = []

    def fleet(self) -> Fleet | list[Problem]:
        for key in self._raw:
            if key not in _TOP:
                self._unknown((), key, _TOP)
        server = self._struct(("server",), ServerEntry) or ServerEntry()
        networks = dict(self._named("networks", Network))
        profiles = dict(self._named("profiles", Profile))
        for name, profile in profiles.items():
            self._check_profile(("profiles", name), profile)
        variables = self._table(("variables",), self._raw.get("variables", {}))
        conditions = {name: self._network(("networks", name), network) for name, network in networks.items()}
        rules = [*self._entries("machine", conditions)]
        rules += self._entries("group", conditions, len(rules))
        self._check_twice(rules)
        if not rules and not self._problems:
            self._problem((), "no machine and no group: nothing would ever boot", 'add  [[group]]  with  profile = "…"')
        if self._problems:
            return sorted(self._problems, key=lambda problem: problem.line)
        lines = {name: self._line(("profiles", name)) for name in profiles}
        return Fleet(self._name, profiles, networks, tuple(rules), variables, server, lines)

    def _named(self, table: str, kind: type[Any]) -> Iterator[tuple[str, Any]]:
        for name in self._table((table,), self._raw.get(table, {})):
            if (found := self._struct((table, name), kind)) is not None:
                yield name, found

    def _struct(self, path: tuple[str | int, ...], kind: type[Any]) -> Any:
        """The value at `path` as a `kind`, each wrong field told; None where there is none, or a wrong one."""
        value: Any = self._raw
        for step in path:
            if isinstance(value, dict) and step not in value:
                return None
            value = value[step]
        if not isinstance(value, dict):
            self._problem(path, f"{_path(path)} should be a table", f"write  [{_path(path)}]")
            return None
        fields = {one.encode_name: one for one in msgspec.structs.fields(kind)}
        good: dict[str, Any] = {}
        wrong = False
        for key, given in value.items():
            if key not in fields:
                self._unknown(path, key, tuple(fields))
                wrong = True
                continue
            try:
                good[key] = msgspec.convert(given, fields[key].type)
            except msgspec.ValidationError as error:
                words = [one for one in _literals(fields[key].type) if isinstance(one, str)]
                fix = f"there are {', '.join(words)}" if words else ""
                self._problem((*path, key), f"{key}: {_plain(str(error))}", fix)
                wrong = True
        if wrong:
            return None
        try:
            return msgspec.convert(good, kind)
        except msgspec.ValidationError as error:
            self._problem(path, f"{_path(path)}: {_plain(str(error))}")
            return None

    def _table(self, path: tuple[str | int, ...], value: object) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self._problem(path, f"{_path(path)} should be a table", f"write  [{_path(path)}]")
        return {}

    def _check_profile(self, path: tuple[str | int, ...], profile: Profile) -> None:
        given = [
            name
            for name, value in (
                ("kernel", profile.kernel), ("script", profile.script),
                ("script-file", profile.script_file), ("local", profile.local), ("menu", profile.menu),
            )
            if value
        ]  # fmt: skip
        if profile.bootinfo:
            try:
                bootinfo_text.read(profile.bootinfo)
            except ValueError as error:
                self._problem((*path, "bootinfo"), f"bootinfo: {error}")
        if len(given) != 1 and (given or not profile.bootinfo):
            what = "nothing to boot" if not given else f"{' and '.join(given)} at once"
            self._problem(path, f"profile {path[-1]} has {what}", "give it one of kernel, script, script-file, local")
        for key in ("initrd", "cmdline"):
            if getattr(profile, key) and profile.kernel is None:
                self._problem((*path, key), f"{key} without a kernel")
        for name, image in images(profile):
            at, _, _ = name.partition("/")
            if not re.fullmatch(r"[0-9a-f]{64}|", image.sha256):
                self._problem((*path, at), f"the sha256 of {at} is no 64 hexadecimal digits", "run  sha256sum FILE")
            if bool(image.signature) != bool(image.keys):
                what = "a signature of {} without keys to check it with" if image.signature else "keys of {}, unused"
                self._problem((*path, at), what.format(at), 'give both:  signature = "…", keys = "FILE"')
        for key in (*profile.documents, *profile.files):
            if not re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", key) or ".." in key.split("/"):
                self._problem(
                    (*path, "documents"), f"{key!r} is no name for a document", "letters, digits, . _ - and /"
                )
        for key in profile.variables:
            self._variable((*path, "variables"), key)
        self._check_menu(path, profile)

    def _check_menu(self, path: tuple[str | int, ...], profile: Profile) -> None:
        written = self._raw["profiles"]
        if len(profile.menu) > MENU_ENTRIES or not 0 <= profile.seconds <= 255:
            self._problem((*path, "menu"), f"a menu has {MENU_ENTRIES} entries at most, and waits 0 to 255 seconds")
        for name, _ in menu_entries(profile):
            if name not in written:
                fix = _nearest(name, tuple(written)) or "write a table  [profiles.…]  for it"
                self._problem((*path, "menu"), f"no profile is called {name!r}", fix)
            elif isinstance(written[name], dict) and written[name].get("menu"):
                self._problem((*path, "menu"), f"{name!r} is a menu itself", "firmware shows one menu")

    def _network(self, path: tuple[str | int, ...], network: Network) -> Condition | None:
        try:
            return subnet_condition("network", _list(network.subnet), str(path[-1]))
        except BadPattern as error:
            self._problem((*path, "subnet"), str(error))
            return None

    def _entries(
        self,
        table: Literal["machine", "group"],
        conditions: Mapping[str, Condition | None],
        order: int = 0,
    ) -> Iterator[Rule]:
        entries = self._raw.get(table, [])
        if not isinstance(entries, list):
            self._problem((table,), f"{table} should be a list of tables", f"write  [[{table}]]  with two brackets")
            return
        for index in range(len(entries)):
            path = (table, index)
            entry = self._struct(path, Entry)
            if entry is not None:
                yield self._rule(path, entry, table == "machine", conditions, order + index)

    def _rule(
        self,
        path: tuple[str | int, ...],
        entry: Entry,
        machine: bool,
        conditions: Mapping[str, Condition | None],
        order: int,
    ) -> Rule:
        wanted: dict[str, Sequence[str | int]] = {key: _list(value) for key, value in entry.match.items()} | {
            key: _list(value) for key in ("mac", "uuid", "serial") if (value := getattr(entry, key)) is not None
        }
        made = [
            one for key, values in wanted.items() if (one := self._condition(path, key, values, conditions)) is not None
        ]
        name = entry.name or " ".join(str(value) for values in wanted.values() for value in values) or "everybody"
        if machine and not {"mac", "uuid", "serial"}.intersection(wanted):
            self._problem(
                path, f"machine {name} has no mac, uuid or serial to know it by", "several machines are a [[group]]"
            )
        written = tuple(self._raw["profiles"]) if isinstance(self._raw.get("profiles"), dict) else ()
        if entry.profile and entry.profile not in written:
            fix = _nearest(entry.profile, written) or "write a table  [profiles.…]  for it"
            self._problem((*path, "profile"), f"no profile is called {entry.profile!r}", fix)
        for key in entry.variables:
            self._variable((*path, "variables"), key)
        exact = [mac for mac in map(_mac_or_none, wanted.get("mac", ())) if mac is not None and len(mac) == 17]
        bound = exact if len(exact) == len(wanted.get("mac", ())) else []
        uuids = tuple(str(value).strip("{}").lower() for value in wanted.get("uuid", ()))
        where = f"{self._name}:{self._line(path)}"
        return Rule(
            name,
            where,
            tuple(made),
            entry.profile,
            entry.variables,
            machine,
            order,
            tuple(bound),
            uuids if not bound else (),
        )

    def _condition(
        self,
        path: tuple[str | int, ...],
        key: str,
        values: Sequence[str | int],
        networks: Mapping[str, Condition | None],
    ) -> Condition | None:
        at = (*path, key) if (*path, key) in self._lines else (*path, "match", key)
        if key not in KEYS:
            self._problem(at, f"no condition is called {key!r}", _nearest(key, KEYS) or f"there are {', '.join(KEYS)}")
            return None
        if key == "network":
            found = [networks.get(str(value)) for value in values]
            if len(found) == 1 and found[0] is not None:
                return found[0]
            if len(found) == 1 and str(values[0]) not in networks:
                fix = _nearest(str(values[0]), tuple(networks)) or "write a table  [networks.…]  for it"
                self._problem(at, f"no network is called {str(values[0])!r}", fix)
            elif len(found) != 1:
                self._problem(at, "network takes one name", "write several groups, or use subnet with a list")
            return None
        try:
            return condition(key, values)
        except BadPattern as error:
            self._problem(at, f"{key}: {error}")
            return None

    def _check_twice(self, rules: Sequence[Rule]) -> None:
        """The same machine twice is a mistake, not a question of which line comes first."""
        for what in ("macs", "uuids"):
            seen: dict[str, Rule] = {}
            for rule in rules:
                for value in getattr(rule, what) if rule.machine else ():
                    if (first := seen.setdefault(value, rule)) is not rule:
                        line = int(rule.where.rpartition(":")[2])
                        self._problems.append(
                            Problem(
                                self._name,
                                line,
                                f"{value} is machine {first.name} already ({first.where})",
                                "remove one",
                            )
                        )

    def _variable(self, path: tuple[str | int, ...], name: str) -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            self._problem((*path, name), f"{name!r} is no name for a variable", "letters, digits and _, no - in it")

    # --- problems -------------------------------------------------------------------------------------------------

    def _unknown(self, path: tuple[str | int, ...], key: str, known: Sequence[str]) -> None:
        fix = _nearest(key, known) or f"there are {', '.join(known)}"
        place = f"{_path(path)} has" if path else "the file has"
        self._problem((*path, key), f"{place} no key {key!r}", fix)

    def _problem(self, path: tuple[str | int, ...], what: str, fix: str = "") -> None:
        self._problems.append(Problem(self._name, self._line(path), what, fix))

    def _line(self, path: tuple[str | int, ...]) -> int:
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)


def menu_entries(profile: Profile) -> list[tuple[str, str]]:
    """Profile and title of each entry."""
    entries = [MenuEntry(entry) if isinstance(entry, str) else entry for entry in profile.menu]
    return [(entry.profile, entry.title or entry.profile) for entry in entries]


def images(profile: Profile) -> Iterator[tuple[str, ImageEntry]]:
    """Name ("kernel", "initrd/0", "files/x") and what is said of each image of a profile."""
    if profile.kernel is not None:
        yield "kernel", _image(profile.kernel)
    for number, initrd in enumerate(_list(profile.initrd)):
        yield f"initrd/{number}", _image(initrd)
    for name, one in profile.files.items():
        yield f"files/{name}", _image(one)


def _image(given: str | ImageEntry) -> ImageEntry:
    if isinstance(given, str):
        return ImageEntry(given)
    return ImageEntry(given.location, given.sha256.lower(), given.signature, given.keys)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _mac_or_none(value: str | int) -> str | None:
    try:
        return mac_prefix(str(value))
    except BadPattern:
        return None


def _nearest(word: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(word, known, 1, 0.6)
    return f"did you mean {found[0]!r}?" if found else ""


def _path(path: tuple[str | int, ...]) -> str:
    """networks.lab, machine number 3"""
    words = [f"number {step + 1}" if isinstance(step, int) else step for step in path]
    return " ".join(words) if any(isinstance(step, int) for step in path) else ".".join(words)


def _literals(kind: Any) -> list[object]:
    """The values that a type's Literals allow."""
    return [one for part in get_args(kind) for one in (_literals(part) if get_args(part) else [part])]


def _plain(error: str) -> str:
    """msgspec's sentence in the words of a TOML file."""
    words = {
        "str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "array": "a list",
        "object": "a table", "null": "nothing",
    }  # fmt: skip

    def said(match: re.Match[str]) -> str:
        return " or ".join(words.get(one, one) for one in match[1].split(" | "))

    text = re.sub(r"`([^`]*)`", said, error)
    return text[:1].lower() + text[1:]


# --- lines --------------------------------------------------------------------------------------------------------

_HEADER = re.compile(r"\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_INLINE = re.compile(r"""[{,]\s*([A-Za-z0-9_-]+|"[^"]*"|'[^']*')\s*=""")


def _positions(text: str) -> dict[tuple[str | int, ...], int]:
    """Line of each table and key of a file that is TOML. Not a parser: what it does not find has its table's line."""
    lines: dict[tuple[str | int, ...], int] = {}
    counts: dict[tuple[str | int, ...], int] = {}
    table: tuple[str | int, ...] = ()
    closing = ""
    for number, line in enumerate(text.split("\n"), 1):
        if closing:
            closing = "" if closing in line else closing
            continue
        if header := _HEADER.fullmatch(line):
            names = _parts(header[2])
            table = _below(names[:-1], counts)
            if header[1] == "[[":
                index = counts[(*table, names[-1])] = counts.get((*table, names[-1]), -1) + 1
                table = (*table, names[-1], index)
            else:
                table = _below(names, counts)
            for depth in range(len(table), 0, -1):
                lines.setdefault(table[:depth], number)
        elif key := _KEY.match(line):
            path = (*table, *_parts(key[1]))
            for depth in range(len(path), len(table), -1):
                lines.setdefault(path[:depth], number)
            value = line[key.end() :]
            for inline in _INLINE.finditer(value):
                lines.setdefault((*path, inline[1].strip("\"'")), number)
            for quotes in ('"""', "'''"):
                if value.count(quotes) % 2:
                    closing = quotes
    return lines


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _below(names: Sequence[str], counts: Mapping[tuple[str | int, ...], int]) -> tuple[str | int, ...]:
    """The path of a table: the last element of each list of tables on the way."""
    path: tuple[str | int, ...] = ()
    for name in names:
        path = (*path, name)
        if path in counts:
            path = (*path, counts[path])
    return path
