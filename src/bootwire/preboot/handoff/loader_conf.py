"""loader.conf(5): variables for the kernel, and the modules that FreeBSD's loader would load (stand/lua/config.lua).

Lines that run loader commands (exec, *_before, *_after, *_error) are told and left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

DEFAULTS = "/boot/defaults/loader.conf"
MAX_LINES = 10_000  # of one file; the defaults have about 200
MAX_VALUE = 8192  # octets of a value after ${…} was replaced

# What the file of defaults says where a system has none (stand/defaults/loader.conf).
_BUILT_IN = {
    "loader_conf_files": "/boot/device.hints /boot/loader.conf",
    "loader_conf_dirs": "/boot/loader.conf.d",
    "local_loader_conf_files": "/boot/loader.conf.local",
    "module_path": "/boot/kernel;/boot/modules",
}

_VALUE = r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?$'
_MODULE = re.compile(r"\s*([\w-]+)_(load|name|type|flags|before|after|error)\s*=\s*" + _VALUE)
_VARIABLE = re.compile(r"\s*([^\s=#]+?)\s*=\s*" + _VALUE)
_NUMBER = re.compile(r"\s*([^\s=#]+?)\s*=\s*(-?\d+)\s*(?:#.*)?$")
_COMMANDS = ("before", "after", "error")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A module to load. kind: "" for kernel modules; flags: arguments it is handed."""

    name: str
    kind: str = ""
    flags: str = ""


@dataclass
class Configuration:
    """What the files read so far say. notes: what was not understood or not done, for a person."""

    variables: dict[str, str] = field(default_factory=lambda: dict(_BUILT_IN))
    notes: list[str] = field(default_factory=list)
    _modules: dict[str, dict[str, str]] = field(default_factory=dict)

    def read(self, text: str, name: str) -> None:
        """Take in one file; later lines win over earlier ones. Never raises."""
        for number, line in enumerate(text.splitlines()[:MAX_LINES], start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if found := _MODULE.match(line):
                self._modules.setdefault(found[1], {})[found[2]] = _unescape(found[3])
                if found[2] in _COMMANDS:
                    self.notes.append(f"{name}:{number}: loader commands are not run: {line.strip()[:80]}")
            elif (found := _VARIABLE.match(line) or _NUMBER.match(line)) and found[1] != "exec":
                self.variables[found[1]] = self._expand(_unescape(found[2]))
            elif found:
                self.notes.append(f"{name}:{number}: loader commands are not run: {line.strip()[:80]}")
            else:
                self.notes.append(f"{name}:{number}: not understood: {line.strip()[:80]}")

    def modules(self) -> Iterator[Wanted]:
        """Those with *_load="YES" that are not blacklisted, in the order they were first named."""
        blacklist = self.variables.get("module_blacklist", "").replace(",", " ").split()
        for key, values in self._modules.items():
            name = values.get("name") or key
            if values.get("load", "").upper() != "YES":
                continue
            if key in blacklist or name in blacklist:
                self.notes.append(f"{name} is in module_blacklist")
                continue
            yield Wanted(name, values.get("type", ""), values.get("flags", ""))

    def module_path(self) -> list[str]:
        return [part.strip().rstrip("/") for part in self.variables["module_path"].split(";") if part.strip()]

    def _expand(self, value: str) -> str:
        def known(found: re.Match[str]) -> str:
            return self.variables.get(found[1] or found[2], "")

        return re.sub(r"\$\{([^}]+)\}|\$([\w.]+)", known, value)[:MAX_VALUE]


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
