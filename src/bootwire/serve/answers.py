"""Names to octets: what a TFTP or HTTP request for a name gets, and from which address its script's URLs are made.

A name is a key of the catalog, a script made on the spot, or a path below the published directory; it never becomes
a path of this machine in any other way. Runs in the transfer loop: nothing here blocks longer than an open(2).
"""

from __future__ import annotations

import hashlib
import os
import time
import urllib.parse
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from bootwire.assets.catalog import Blob, Catalog, Inline, LocalFile, RemoteFile, Transformed
from bootwire.assets.scripts import MARKER, Caller, caller
from bootwire.boot_server import split_machine
from bootwire.engine import Ns, S
from bootwire.facts import HandedOver, ScriptServed
from bootwire.serve.boot_scripts import Script
from bootwire.serve.content import Content, Later, Missing, Peer, Record, Reply, Upstream
from bootwire.serve.files import A_DIRECTORY, PublishedDirectory, for_machine, open_local
from bootwire.serve.listing import render
from bootwire.serve.mode import Room
from bootwire.wire.http import Request
from bootwire.wire.text import printable

MACHINES = 4096  # boots under way whose octets are counted; the oldest is forgotten first

OPTIONAL = ("revocations", "shim_certificate", "pxelinux.cfg", "grub.cfg", "command.lst", "fs.lst", "crypto.lst")
"""Parts of names that loaders try and do without (shim 16, PXELINUX, GRUB): their absence is no news."""

POSTED = ("done",)
"""Rooms that take a POST."""

SCRIPT = "autoexec.ipxe"  # what iPXE asks the directory it came from for (interface/efi/efi_autoexec.c)


@dataclass(slots=True)
class _Progress:
    since: Ns
    octets: int = 0


class Answers:
    """The resolvers of both transfer services.

    first_script(mac, ours)   what iPXE runs when it finds autoexec.ipxe beside itself; ours: our address
    boot_script(mac, request, caller, peer)   what boots this machine; caller: what iPXE said of itself
    config(mac, name, peer)   PXELINUX's configuration over TFTP, None where it is not for that machine
    rooms                     further first parts of HTTP paths, and who looks below them
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        first_script: Callable[[str, str], bytes],
        boot_script: Callable[[str, Request, Caller, Peer], Script | Later],
        rooms: Mapping[str, Room] | None = None,
        config: Callable[[str, str, Peer], Content | None] | None = None,
        machine_at: Callable[[str], str],
        published: PublishedDirectory | None,
        record: Record,
    ) -> None:
        self._catalog = catalog
        self._first_script = first_script
        self._boot_script = boot_script
        self._rooms = rooms or {}
        self._config = config
        self._machine_at = machine_at
        self._published = published
        self._record = record
        self._progress: OrderedDict[str, _Progress] = OrderedDict()

    def tftp(self, name: bytes, peer: Peer) -> Content | Missing:
        machine, rest = split_machine(clean_name(name))
        machine = machine or self._machine_at(peer.address)
        if rest == SCRIPT or rest.endswith("/" + SCRIPT):
            return _inline(SCRIPT, self._autoexec(machine, peer), "text/plain", machine)
        blob = self._catalog.get(rest)
        if blob is not None:
            return self._open(blob, machine)
        if self._config is not None and (found := self._config(machine, rest, peer)) is not None:
            return found
        return self._open_published(rest, machine)

    def http(self, request: Request, peer: Peer) -> Content | Missing | Reply | Upstream | Later:
        path = request.path.lstrip("/")
        room, _, rest = path.partition("/")
        if request.method == "POST" and room not in POSTED:
            return Reply(405, b"nothing is posted here\n", headers=(("Allow", "GET, HEAD"),))
        if path == "boot.ipxe":
            return self._script(request, peer)
        if room == "boot":
            return self._boot_file(rest, peer)
        if room == "files":
            return self._published_over_http(path, rest, self._machine_at(peer.address))
        if room in self._rooms:
            return self._rooms[room](rest, request, peer)
        if path == "":
            return Reply(200, b"Bootwire: network boot server. Machines ask /boot.ipxe for their script.\n")
        return Missing(f"nothing is served at /{printable(room, 40)}", self._machine_at(peer.address))

    # --- parts --------------------------------------------------------------------------------------------------

    def _autoexec(self, machine: str, peer: Peer) -> bytes:
        because = "iPXE looks for it beside itself before it asks DHCP"
        self._record(ScriptServed(machine, SCRIPT, peer.address, "iPXE", because))
        return self._first_script(machine, peer.ours)

    def _script(self, request: Request, peer: Peer) -> Reply | Later:
        said = next((value for name, value in request.query if name == "mac"), "")
        machine = _mac(said) or self._machine_at(peer.address)
        who = caller(request.query, request.headers.get("user-agent", ""))
        script = self._boot_script(machine, request, who, peer)
        if isinstance(script, Later):
            return script
        self._record(ScriptServed(machine, "boot.ipxe", peer.address, str(who), script.because))
        if machine:
            self._progress[machine] = _Progress(time.monotonic_ns())
            self._progress.move_to_end(machine)
            while len(self._progress) > MACHINES:
                self._progress.popitem(last=False)
        return Reply(200, script.text, machine=machine)

    def _boot_file(self, name: str, peer: Peer) -> Content | Missing | Reply | Upstream:
        machine, rest = split_machine(name)
        machine = machine or self._machine_at(peer.address)
        if rest == MARKER:
            progress = self._progress.pop(machine, None) or _Progress(time.monotonic_ns())
            seconds = (time.monotonic_ns() - progress.since) / S
            self._record(HandedOver(machine, peer.address, progress.octets, round(seconds, 3)))
            return Reply(200, b"#\n", machine=machine)
        if rest == SCRIPT or rest.endswith("/" + SCRIPT):
            return Reply(200, self._autoexec(machine, peer), machine=machine)
        blob = self._catalog.get(rest)
        if blob is None:
            return Missing(f'no boot file is called "{printable(rest)}"', machine, quiet=_optional(rest))
        if isinstance(blob.source, RemoteFile):
            return Upstream(blob.name, blob.source.url, machine, blob.media_type)
        return self._open(blob, machine)

    def count(self, machine: str, octets: int) -> None:
        """Octets reached a machine: they count towards its hand-over. Called before it can ask for the next thing."""
        if (progress := self._progress.get(machine)) is not None:
            progress.octets += octets

    # --- parts --------------------------------------------------------------------------------------------------

    def _open(self, blob: Blob, machine: str) -> Content | Missing:
        match blob.source:
            case Inline(data):
                return _inline(blob.name, data, blob.media_type, machine)
            case LocalFile(path):
                return for_machine(open_local(path, blob.name, blob.media_type), machine)
            case RemoteFile():
                return Missing("it lives at a URL, which TFTP cannot stream", machine)
            case Transformed(path, largest, change):
                found = open_local(path, blob.name, blob.media_type)
                if isinstance(found, Missing):
                    return for_machine(found, machine)
                try:
                    octets = os.pread(found.fd, largest, 0)
                finally:
                    found.close()
                return _inline(blob.name, change(octets), blob.media_type, machine)

    def _open_published(self, name: str, machine: str) -> Content | Missing:
        if self._published is None:
            return Missing("no such boot file, and no directory is published (--files)", machine, quiet=_optional(name))
        found = for_machine(self._published.open(name), machine)
        return replace(found, quiet=True) if isinstance(found, Missing) and _optional(name) else found

    def _published_over_http(self, path: str, name: str, machine: str) -> Content | Missing | Reply:
        """A file; or, where the path ends in a slash as a directory's should, what is in the directory."""
        if self._published is None or (name and not name.endswith("/")):
            found = self._open_published(name, machine)
            if isinstance(found, Content):
                return self._again_for_all(found)
            if found.because != A_DIRECTORY:
                return found
        elif path.endswith("/"):
            listed = self._published.listing(name)
            if isinstance(listed, Missing):
                return replace(listed, machine=machine)
            entries, more = listed
            return Reply(200, render(name, entries, more=more), "text/html", machine=machine)
        here = urllib.parse.quote(path.rpartition("/")[2].encode("utf-8", "surrogateescape"), safe="")
        return Reply(301, b"", headers=(("Location", f"./{here}/"),), machine=machine)

    def _again_for_all(self, found: Content) -> Content:
        """The same file is for whoever asks for it by the same name; which machine that is, its address tells."""
        still, machine_at = found.still, self._machine_at
        if still is not None:
            found.again = lambda peer: machine_at(peer.address) if still() else None
        return found


def clean_name(name: bytes) -> str:
    """A TFTP name as firmware means it: backslashes are slashes, and garbage after the name is not part of it.

    Old ROMs take the octets after an unterminated option 67 along (0xFF, the END option, and what follows it).
    """
    text = name.split(b"\xff", 1)[0].decode("utf-8", "replace").replace("\\", "/")
    while text and (text[-1] < " " or text[-1] == "\x7f"):
        text = text[:-1]
    return text.lstrip("/")


def _inline(name: str, data: bytes, media_type: str, machine: str) -> Content:
    digest = hashlib.sha256(data).hexdigest()
    return Content(name, len(data), data, key=digest, etag=f'"{digest[:32]}"', media_type=media_type, machine=machine)


def _mac(text: str) -> str:
    machine, _ = split_machine(text.replace(":", "-").lower() + "/")
    return machine


def _optional(name: str) -> bool:
    return any(part in name for part in OPTIONAL)
