"""Files out of distribution packages, without root and without installing anything.

InRelease -> its signature (with this machine's archive keys) -> the package index by digest -> the .deb by digest ->
its members. Everything is kept below the state directory by its SHA-256, so that a second run needs no network:

    debs/<digest>          the package as fetched
    debs/<digest>.json     its regular files, and the digests of those that were unpacked
    blobs/<sha256>         unpacked files
    packages/<request>.json  which package answered a request: name, version, suite, digest, how it was verified
    lists/…                package indexes, kept while the mirror's InRelease still names their digest

Formats: deb-control(5), the Debian repository format (wiki.debian.org/DebianRepository/Format).
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.client
import json
import lzma
import os
import re
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import bootwire
from bootwire.serve import apt
from bootwire.serve.deb import PackageError, unpack, version_key
from bootwire.serve.signatures import Untrusted, signed_text

NEWEST = ("sid", "testing", "devel", "stable")
"""Suites that hold what is newest, of Debian and of Ubuntu; a mirror says quickly which of them it has."""

TIMEOUT = 20.0  # seconds without an octet before a mirror counts as out of reach
MAX_RELEASE = 8 << 20  # octets; Debian sid: 190 kB
MAX_INDEX = 64 << 20  # octets packed; Debian sid amd64: 11 MB
MAX_INDEX_TEXT = 512 << 20  # octets unpacked; Debian sid amd64: 60 MB
MAX_DEB = 1 << 30  # octets; the largest of use here are kernels with their modules, about 110 MB
MAX_MEMBER = 512 << 20  # octets of one unpacked file
CHUNK = 1 << 18

Say = Callable[[str, int, int], None]
"""Progress: what is being fetched, octets so far, octets in all (-1: not known). Called at most once a chunk."""


class _Absent(PackageError):
    """The mirror has no such thing: look elsewhere."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package in the cache, and the files that were asked for.

    verified: how far the chain of trust reached, a phrase: "signed by …", "signature not checked: no gpgv here"
    files: by their path in the package without the leading slash ("usr/lib/ipxe/snponly.efi")
    """

    name: str
    version: str
    architecture: str
    suite: str
    mirror: str
    digest: str
    verified: str
    files: dict[str, Path] = field(default_factory=dict)


def fetch_package(
    name: str,
    suite: str | Sequence[str] | None = None,
    architecture: str = "amd64",
    members: Callable[[str], bool] = lambda path: True,
    *,
    state: Path,
    configuration: apt.Apt | None = None,
    progress: Say = lambda what, octets, whole: None,
    refresh: bool = False,
) -> Package:
    """The newest package called `name` (a glob is fine: "linux-image-6.1*-cloud-arm64") and its chosen files.

    suite: which to look in, in this order; None: those that this machine's apt uses. The first that has it counts.
    members: chooses files by their path in the package, without leading slash. If a package has none of them, those
    that it depends on are tried (a metapackage such as linux-image-cloud-amd64).
    refresh: ask the mirror even if the cache has an answer to the same question.

    Raises PackageError. Blocks: minutes on a slow line.
    """
    fetcher = _Fetcher(state, configuration or apt.read(), progress)
    suites = (suite,) if isinstance(suite, str) else tuple(suite or ())
    try:
        return fetcher.package(name, suites, architecture, members, refresh)
    except (OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
        raise PackageError(f"{name}: {error}") from None


def kept(state: Path) -> Iterator[Package]:
    """Every package in the cache with the files that were unpacked from it; the newest answers come last."""
    for path in sorted((state / "packages").glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        package = _remembered(_load(path))
        if package is not None:
            listing = _load(state / "debs" / f"{package.digest}.json") or {}
            yield replace(package, files={str(n): blob(state, str(value)) for n, value in listing.items() if value})


def has(path: Path, digest: str) -> bool:
    """Whether there is a readable file with this digest."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, _algorithm(digest)).hexdigest() == digest
    except OSError:
        return False


def blob(state: Path, digest: str) -> Path:
    """Where a file with this SHA-256 is kept, whether or not it is there."""
    return state / "blobs" / digest


class _Fetcher:
    def __init__(self, state: Path, configuration: apt.Apt, progress: Say) -> None:
        self._state = state
        self._apt = configuration
        self._progress = progress
        self._suites: dict[tuple[str, str], _Suite] = {}

    def package(
        self, name: str, suites: tuple[str, ...], architecture: str, members: Callable[[str], bool], refresh: bool
    ) -> Package:
        found, depends = self._resolve(name, suites, architecture, refresh)
        if files := self._unpack(found.digest, members):
            return replace(found, files=files)
        for one in depends:
            with contextlib.suppress(PackageError):  # a virtual package, or one that is not in this suite
                found, _ = self._resolve(one, suites, architecture, refresh)
                if files := self._unpack(found.digest, members):
                    return replace(found, files=files)
        raise PackageError(f"{name} has none of the files wanted, nor has any package it depends on")

    def _resolve(
        self, name: str, suites: tuple[str, ...], architecture: str, refresh: bool
    ) -> tuple[Package, list[str]]:
        """The package that answers to `name`, in the cache; and the names of what it depends on."""
        request = urllib.parse.quote(f"{name} {architecture} {'-'.join(suites) or 'configured'}", safe=" ")
        kept_at = self._state / "packages" / f"{request}.json"
        if not refresh and (answer := _load(kept_at)) is not None:
            known = _remembered(answer)
            if known is not None and has(self._state / "debs" / known.digest, known.digest):
                return known, [str(one) for one in answer.get("depends", [])]
        stanza, suite = self._search(name, suites, architecture)
        digest = stanza.get("sha256") or stanza.get("sha512", "")
        size = int(stanza["size"]) if stanza.get("size", "").isdigit() else -1
        if not _DIGEST.fullmatch(digest) or not 0 < size <= MAX_DEB:
            raise PackageError(f"the index of {suite.suite} has no usable digest and size for {name}")
        deb = self._state / "debs" / digest
        if not has(deb, digest):
            address = f"{suite.mirror.base}/{urllib.parse.quote(stanza.get('filename', ''))}"
            self._download(address, deb, size, digest, stanza["package"])
        found = Package(
            stanza["package"], stanza.get("version", ""), stanza.get("architecture", ""), suite.suite,
            suite.mirror.base, digest, suite.verified,
        )  # fmt: skip
        wanted = ", ".join((stanza.get("pre-depends", ""), stanza.get("depends", "")))
        depends = [part.split()[0].split(":")[0] for part in wanted.split(",") if part.strip()]
        _store(kept_at, {key: getattr(found, key) for key in _FIELDS} | {"depends": depends})
        return found, depends

    def _search(self, name: str, suites: tuple[str, ...], architecture: str) -> tuple[dict[str, str], _Suite]:
        if not self._apt.mirrors:
            raise PackageError(
                "this machine has no apt configuration that names a package mirror",
                "name a Debian mirror with --mirror URL",
            )
        troubles: list[str] = []
        for mirror in self._apt.mirrors:
            for suite in suites or mirror.suites:
                try:
                    release = self._release(mirror, suite)
                    for stanza in self._stanzas(release, name, architecture):
                        return stanza, release
                    troubles.append(f"{mirror.base} {release.suite} has no {name} for {architecture}")
                except Untrusted:
                    raise
                except PackageError as error:  # not there, or a mirror in the middle of its update
                    troubles.append(str(error))
                except (OSError, http.client.HTTPException) as error:
                    troubles.append(f"{mirror.base}: {getattr(error, 'reason', error)}")
                    break  # this mirror is out of reach for every suite
        raise PackageError(f"{name} is not to be had: {'; '.join(dict.fromkeys(troubles))}", "is the network up?")

    # --- indexes ------------------------------------------------------------------------------------------------

    def _release(self, mirror: apt.Mirror, suite: str) -> _Suite:
        key = (mirror.base, suite)
        if key not in self._suites:
            data = self._read(
                f"{mirror.base}/dists/{urllib.parse.quote(suite)}/InRelease", MAX_RELEASE, f"{suite} index"
            )
            text, verified = signed_text(data, mirror)
            fields = apt.parse_stanza(text)
            digests: dict[str, tuple[str, int]] = {}
            for line in (fields.get("sha256") or fields.get("sha512", "")).splitlines():
                parts = line.split()
                if len(parts) == 3 and _DIGEST.fullmatch(parts[0]) and parts[1].isdigit():
                    digests[parts[2]] = (parts[0], int(parts[1]))
            components = tuple(dict.fromkeys((*mirror.components, *_also(fields.get("components", "")))))
            self._suites[key] = _Suite(
                mirror, fields.get("codename", "") or suite, suite, components, digests, verified,
                fields.get("acquire-by-hash", "") == "yes",
            )  # fmt: skip
        return self._suites[key]

    def _stanzas(self, suite: _Suite, name: str, architecture: str) -> Iterator[dict[str, str]]:
        """The newest matching paragraph of the first index that has any; at most one is yielded."""
        wide = re.escape(name).replace(r"\*", r"[^\n]*").replace(r"\?", "[^\n]")
        first = re.compile(rb"Package: %b\n" % wide.encode())
        for component in suite.components:
            # An index for every architecture may stand beside the others (smaller), or be part of them, or both.
            for kind in (architecture, "all") if architecture != "all" else ("all", _NATIVE):
                paragraphs = self._paragraphs(suite, f"{component}/binary-{kind}/Packages")
                found = [apt.parse_stanza(text.decode("utf-8", "replace")) for text in paragraphs if first.match(text)]
                if found:
                    yield max(found, key=lambda stanza: version_key(stanza.get("version", "")))
                    return

    def _paragraphs(self, suite: _Suite, path: str) -> Iterator[bytes]:
        packed = next((path + ending for ending in (".xz", ".gz") if path + ending in suite.digests), "")
        if not packed:
            return
        digest, size = suite.digests[packed]
        file = self._state / "lists" / re.sub(r"[^A-Za-z0-9.-]", "_", f"{suite.mirror.base} {suite.asked} {packed}")
        if not has(file, digest):
            if size > MAX_INDEX:
                raise PackageError(f"{suite.mirror.base} {suite.suite}: {packed} is too large ({size} octets)")
            folder = f"{suite.mirror.base}/dists/{urllib.parse.quote(suite.asked)}"
            by_hash = f"{folder}/{packed.rpartition('/')[0]}/by-hash/{_algorithm(digest).upper()}/{digest}"
            addresses = [by_hash] if suite.by_hash else []
            self._download_first([*addresses, f"{folder}/{packed}"], file, size, digest, f"{suite.suite} {packed}")
        unpack = lzma.open if packed.endswith(".xz") else gzip.open
        with unpack(file, "rb") as stream:
            yield from _split(stream, packed)

    # --- files --------------------------------------------------------------------------------------------------

    def _unpack(self, digest: str, members: Callable[[str], bool]) -> dict[str, Path]:
        """The chosen regular files of a cached .deb, each in the blob store."""
        deb = self._state / "debs" / digest
        record = self._state / "debs" / f"{digest}.json"
        listing = _load(record)
        if listing is not None:
            known = {str(name): str(value) for name, value in listing.items()}
            chosen = {name: value for name, value in known.items() if members(name)}
            paths = {name: blob(self._state, value) for name, value in chosen.items() if value}
            if len(paths) == len(chosen) and all(has(path, path.name) for path in paths.values()):
                return paths
        else:
            known = {}
        found: dict[str, Path] = {}

        def take(name: str, size: int, contents: IO[bytes]) -> None:
            known.setdefault(name, "")
            if not members(name):
                return
            if size > MAX_MEMBER:
                raise PackageError(f"{name} is too large ({size} octets)")
            with new_file(self._state / "blobs") as (file, into):
                sha = hashlib.sha256()
                while chunk := contents.read(CHUNK):
                    sha.update(chunk)
                    file.write(chunk)
                known[name] = sha.hexdigest()
                found[name] = into(known[name])

        unpack(deb, take)
        _store(record, known)
        return found

    # --- the network --------------------------------------------------------------------------------------------

    def _read(self, address: str, most: int, what: str) -> bytes:
        with self._open(address) as answer:
            data = bytearray()
            while chunk := answer.read(CHUNK):
                data += chunk
                if len(data) > most:
                    raise PackageError(f"{address} is longer than {most} octets")
                self._progress(what, len(data), _length(answer))
        return bytes(data)

    def _download_first(self, addresses: list[str], to: Path, size: int, digest: str, what: str) -> None:
        for address in addresses:
            try:
                return self._download(address, to, size, digest, what)
            except _Absent:
                if address == addresses[-1]:
                    raise

    def _download(self, address: str, to: Path, size: int, digest: str, what: str) -> None:
        """Fetch exactly `size` octets with this digest into `to`, or leave nothing behind."""
        with self._open(address) as answer, new_file(to.parent) as (file, into):
            sha, octets = hashlib.new(_algorithm(digest)), 0
            while chunk := answer.read(CHUNK):
                octets += len(chunk)
                if octets > size:
                    break
                sha.update(chunk)
                file.write(chunk)
                self._progress(what, octets, size)
            if octets != size:
                raise PackageError(f"{address}: {'more than ' if octets > size else ''}{octets} of {size} octets came")
            if sha.hexdigest() != digest:
                raise PackageError(f"{address} has the digest {sha.hexdigest()}, the index says {digest}")
            into(to.name)

    def _open(self, address: str) -> Any:
        parts = urllib.parse.urlsplit(address)
        headers = {"User-Agent": f"bootwire/{bootwire.__version__}", "Accept-Encoding": "identity"}
        if parts.username:
            login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
            address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        direct = parts.hostname in self._apt.direct
        opener = urllib.request.OpenerDirector()
        for handler in (  # no file:, ftp: or data:, wherever a redirection may point
            urllib.request.ProxyHandler({} if direct else dict(self._apt.proxies)),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            opener.add_handler(handler)
        try:
            return opener.open(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            kind = _Absent if error.code in (403, 404, 410) else PackageError
            raise kind(f"{address} answers {error.code}") from None


@dataclass(frozen=True, slots=True)
class _Suite:
    mirror: apt.Mirror
    suite: str  # its codename
    asked: str  # the name it was asked for by
    components: tuple[str, ...]
    digests: dict[str, tuple[str, int]]  # path below dists/<asked>/ -> digest, octets
    verified: str
    by_hash: bool


_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")  # SHA-256, or SHA-512 where a mirror has only that
_NATIVE = "amd64"  # whose index lists packages for all architectures where a mirror has no index for those alone
_FIELDS = ("name", "version", "architecture", "suite", "mirror", "digest", "verified")


def _remembered(answer: dict[str, Any] | None) -> Package | None:
    """A record of packages/ as it was stored, None if it is not whole."""
    fields = [str((answer or {}).get(key, "")) for key in _FIELDS]
    return Package(*fields) if _DIGEST.fullmatch(fields[_FIELDS.index("digest")]) else None  # type: ignore[arg-type]


def _also(components: str) -> list[str]:
    """Components worth a look beside the configured ones: iPXE is in Ubuntu's universe."""
    return [name for name in ("main", "universe") if name in components.split()]


def _split(stream: lzma.LZMAFile | gzip.GzipFile, what: str) -> Iterator[bytes]:
    """Paragraphs of an index, whole, each ending in a newline."""
    rest, octets = b"", 0
    try:
        while chunk := stream.read(1 << 20):
            octets += len(chunk)
            if octets > MAX_INDEX_TEXT:
                raise PackageError(f"{what} unpacks to more than {MAX_INDEX_TEXT} octets")
            *whole, rest = (rest + chunk).split(b"\n\n")
            for paragraph in whole:
                yield paragraph + b"\n"
    except (lzma.LZMAError, EOFError, OSError) as error:
        raise PackageError(f"{what} cannot be unpacked: {error}") from None
    if rest.strip():
        yield rest


# --- the state directory ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def new_file(folder: Path) -> Iterator[tuple[IO[bytes], Callable[[str], Path]]]:
    """A file that appears under its name at once and whole, or not at all: (file, give it this name)."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(prefix=".new-", dir=folder)

    with contextlib.ExitStack() as stack:
        stack.callback(lambda: Path(path).unlink(missing_ok=True))
        file = stack.enter_context(os.fdopen(handle, "wb"))

        def into(name: str) -> Path:
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.replace(path, folder / name)
            return folder / name

        yield file, into


def _store(path: Path, value: object) -> None:
    with new_file(path.parent) as (file, into):
        file.write(json.dumps(value, indent=1).encode())
        into(path.name)


def _load(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _algorithm(digest: str) -> str:
    return "sha256" if len(digest) == 64 else "sha512"


def _length(answer: Any) -> int:
    said = answer.headers.get("Content-Length", "")
    return int(said) if said.isdigit() else -1
