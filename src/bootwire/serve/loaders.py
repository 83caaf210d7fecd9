"""Boot loader files: those on this machine, which of them are served, and how missing ones come here.

Looked at in this order: what the operator gave, what was fetched earlier, what the distribution installed. A file is
known by its content (bootwire.assets.loaders), never by its name; the operator's always win, among the others the
build that can do most.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bootwire.assets.catalog import Blob, LocalFile
from bootwire.assets.loaders import MAX_SIZE, NAMES, Build, catalog_name, choose, identify
from bootwire.policy.decide import NOT_BY_AUTO
from bootwire.serve import apt, packages
from bootwire.serve.deb import PackageError
from bootwire.wire.reader import WireError
from bootwire.wire.url import parse_url

WANTED = ("bios", "x86_64", "arm64")
"""Platforms that a server should have a loader for: PCs of both kinds, and 64-bit ARM servers and boards."""

ADOPTED = "adopted"  # below the state directory: what the user who started us had fetched

MAX_FILES = 200  # looked at in one directory, so that a wrong --loaders / does no harm

Echo = Callable[[str], None]
"""Prints one line."""


@dataclass(frozen=True, slots=True)
class Loader:
    """A boot loader file that is served as `name` (of the catalog).

    origin: where it comes from, a phrase: "given", "installed", "fetched: ipxe 2.0.0+dfsg-5 of sid, signed by …"
    digest: SHA-256, lower-case hexadecimal
    """

    name: str
    path: Path
    size: int
    digest: str
    build: Build
    origin: str


class Advice(NamedTuple):
    """What a person should know; fix: the command to run next, or ""."""

    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.what}: run  {self.fix}  or install the package ipxe" if self.fix else self.what


def state_directory(given: str | None = None) -> Path:
    """Where fetched files and later the journal live: `given`, /var/lib/bootwire for root, else the user's data."""
    if given:
        return Path(given).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/bootwire")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "bootwire"


def invoking_user() -> Path | None:
    """The state directory of the user who has become root for this command (sudo's SUDO_USER), if there is one."""
    name = os.environ.get("SUDO_USER")
    if os.geteuid() != 0 or not name:
        return None
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return None
    return Path(user.pw_dir) / ".local/share" / "bootwire" if user.pw_uid else None


def adopt(theirs: Path, state: Path) -> None:
    """Copy what a user has fetched into our own state directory: loaders whose digest is their name.

    Nothing is served from where the user could still change it, and nothing that is no loader is read twice.
    """
    for loader in _recognised(_files([theirs / "blobs"]), ""):
        with loader.path.open("rb") as file:
            data = file.read(MAX_SIZE)
        if loader.path.name == loader.digest == hashlib.sha256(data).hexdigest():
            with packages.new_file(state / ADOPTED) as (copy, keep):
                copy.write(data)
                keep(loader.digest)


def find(state: Path, given: str | None = None, root: Path = Path("/")) -> dict[str, Loader]:
    """The loader for each name of the catalog that can be had without the network. Reads some 10 MB."""
    operators = list(_recognised(_files([Path(given)]), "given")) if given else []
    adopted = _recognised(_files([state / ADOPTED]), "fetched by the user who started it")
    others = [*_fetched(state), *adopted, *_recognised(_installed(root), "installed")]
    found = _best(others)
    return dict(sorted((found | _best(operators)).items()))


def ready(
    state: Path,
    given: str | None = None,
    *,
    fetch_missing: bool = True,
    progress: packages.Say = lambda what, octets, whole: None,
    root: Path = Path("/"),
    theirs: Path | None = None,
    pxelinux: bool = False,
) -> tuple[dict[str, Loader], list[Advice]]:
    """What to serve, and what a person should know. Never raises.

    If a wanted platform has no loader, looks into `theirs`, another state directory; then fetches once.
    pxelinux: PXELINUX is asked for by name, so that its builds count wherever they run.
    """
    found, error = find(state, given, root), ""
    if missing(found, pxelinux) and theirs is not None:
        with contextlib.suppress(OSError):
            adopt(theirs, state)
            found = find(state, given, root)
    if missing(found, pxelinux) and fetch_missing:
        try:
            fetch(state, progress=progress)
            found = find(state, given, root)
        except PackageError as failure:
            error = str(failure)
    notes = [_advice(lacking, error)] if (lacking := missing(found, pxelinux)) else []
    if given and not any(loader.origin == "given" for loader in found.values()):
        notes.append(Advice(f"{given} holds no boot loader that can be served: iPXE builds with HTTP can"))
    return found, notes


def missing(loaders: Iterable[str], pxelinux: bool = False) -> tuple[str, ...]:
    """Wanted platforms that none of these catalog names serves; by itself, or where PXELINUX is asked for by name."""
    have = {name.split("/", 1)[0] for name in loaders if pxelinux or name not in NOT_BY_AUTO}
    return tuple(platform for platform in WANTED if platform not in have)


def catalog(loaders: Mapping[str, Loader]) -> dict[str, Blob]:
    """As blobs; EFI programs with the media type that UEFI HTTP Boot compares (UEFI 2.10 section 24.7.5.2)."""
    return {
        name: Blob(
            name,
            loader.size,
            LocalFile(str(loader.path)),
            "application/efi" if name.endswith(".efi") else "application/octet-stream",
            loader.digest,
        )
        for name, loader in loaders.items()
    }


def sizes(loaders: Mapping[str, Loader]) -> dict[str, int]:
    """Octets of each that may be weighed against another: where the operator gave one, those are not the others."""
    given = {name.partition("/")[0] for name, loader in loaders.items() if loader.origin == "given"}
    return {
        name: loader.size
        for name, loader in loaders.items()
        if loader.origin == "given" or name.partition("/")[0] not in given
    }


def modules(loaders: Iterable[str], root: Path = Path("/")) -> dict[str, Blob]:
    """PXELINUX's libraries for those of its builds that are at hand, by catalog name: "bios/ldlinux.c32"."""
    found = {}
    builds = {name.partition("/")[0] for name in loaders if name.endswith(("lpxelinux.0", "syslinux.efi"))}
    for name, places in _MODULES.items():
        path = next((root / place for place in places if (root / place).is_file()), None)
        if path is not None and name.partition("/")[0] in builds:
            found[name] = Blob(name, path.stat().st_size, LocalFile(str(path)))
    return found


def summary(loaders: Mapping[str, Loader]) -> str:
    """One line for a person: "iPXE 2.0.0+dfsg-5 (bios, x86_64, arm64), fetched: …", one after the other; "none"."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name, loader in loaders.items():
        kind = NAMES.get(loader.build.kind, loader.build.kind)
        key = (kind, loader.build.version or "of unknown version", loader.origin)
        groups.setdefault(key, []).append(name.split("/", 1)[0])
    parts = [
        f"{kind} {version} ({', '.join(dict.fromkeys(platforms))}), {origin}"
        for (kind, version, origin), platforms in groups.items()
    ]
    return "; ".join(parts) or "none"


def fetch(
    state: Path,
    mirror: str | None = None,
    progress: packages.Say = lambda what, octets, whole: None,
    configuration: apt.Apt | None = None,
) -> packages.Package:
    """Fetch the newest iPXE from this machine's package mirror, or from `mirror`. Raises PackageError."""
    if configuration is None:
        configuration = apt.read()
    if mirror:
        try:
            parse_url(mirror)
        except WireError as error:
            raise PackageError(f"{mirror}: {error.what}") from None
        own = tuple(one for one in configuration.mirrors if one.base == mirror.rstrip("/"))
        configuration = apt.Apt(own or (apt.named(mirror),), configuration.proxies, configuration.direct)
    suites = (*packages.NEWEST, *(suite for one in configuration.mirrors for suite in one.suites))

    def get(name: str, suites: tuple[str, ...]) -> packages.Package:
        return packages.fetch_package(
            name, suites, "all", _is_loader, state=state, configuration=configuration, progress=progress, refresh=True
        )

    package = get(_PACKAGE, suites)
    if not any("arm64" in path for path in package.files):  # Ubuntu before 25.04 has some builds in another package
        with contextlib.suppress(PackageError):
            get(_MORE, (package.suite,))
    return package


# --- the commands -----------------------------------------------------------------------------------------------


def run_list(echo: Echo, state: Path, given: str | None = None, as_json: bool = False, root: Path = Path("/")) -> int:
    """`bootwire assets list`: what is served, what each file is, where it comes from. Status 1 if there is nothing."""
    found = find(state, given, root)
    lacking = missing(found)
    if as_json:
        echo(json.dumps({"v": 1, "loaders": [_as_dict(one) for one in found.values()], "missing": list(lacking)}))
        return 0 if found else 1
    for loader in found.values():
        echo(f"{loader.name}\n    {loader.build}\n    {_abilities(loader.build)}")
        echo(f"    {loader.path}, {loader.size:,} octets, {loader.origin}\n    sha256 {loader.digest}")
    if lacking:
        echo(str(_advice(lacking, "")))
    return 0 if found else 1


def listed(loaders: Mapping[str, Loader]) -> list[dict[str, object]]:
    """What each is, as JSON objects."""
    return [_as_dict(loader) for loader in loaders.values()]


def run_fetch(
    echo: Echo,
    state: Path,
    mirror: str | None = None,
    as_json: bool = False,
    progress: packages.Say = lambda what, octets, whole: None,
    configuration: apt.Apt | None = None,
) -> int:
    """`bootwire assets fetch`: fetch the newest iPXE into the state directory. Status 1 if it cannot be had."""
    try:
        package = fetch(state, mirror, progress, configuration)
    except PackageError as error:
        if as_json:
            echo(json.dumps({"v": 1, "error": str(error), "hint": error.hint}))
        else:
            echo(f"error: {error}" + (f"\n  try  {error.hint}" if error.hint else ""))
        return 1
    if as_json:
        said = {"package": package.name, "version": package.version, "suite": package.suite, "mirror": package.mirror}
        files = {path: file.name for path, file in package.files.items()}
        echo(json.dumps({"v": 1, **said, "digest": package.digest, "verified": package.verified, "files": files}))
        return 0
    echo(f"{package.name} {package.version} of {package.suite} from {package.mirror}: {package.verified}")
    for path, file in package.files.items():
        build = identify(file.read_bytes())
        echo(f"    {path}: {build or 'not a loader we know'}")
    return 0


def run_verify(echo: Echo, state: Path, given: str | None = None, as_json: bool = False, root: Path = Path("/")) -> int:
    """`bootwire assets verify`: read every file again and compare it with its digest. Status 1 if one is damaged."""
    rows = [
        (f"{package.name} {package.version}: {path}", packages.has(file, file.name), package.verified)
        for package in packages.kept(state)
        for path, file in package.files.items()
    ]
    rows += [
        (str(loader.path), True, f"{loader.build}, {loader.origin}: nothing to compare it with")
        for loader in find(state, given, root).values()
        if loader.path.parent != state / "blobs"
    ]
    good = all(ok for _, ok, _ in rows)
    if as_json:
        files = [{"file": what, "ok": ok, "verified": verified} for what, ok, verified in rows]
        echo(json.dumps({"v": 1, "ok": good, "files": files}))
    else:
        for what, ok, verified in rows:
            echo(f"{'ok     ' if ok else 'DAMAGED'} {what} ({verified})")
        if not good:
            echo("  try  bootwire assets fetch")
        elif not rows:
            echo("nothing fetched, nothing found")
    return 0 if good else 1


# --- helpers ----------------------------------------------------------------------------------------------------

_PACKAGE, _MORE = "ipxe", "grub-ipxe"
_ENDINGS = (".efi", ".kpxe", ".pxe", "lpxelinux.0")
_PLACES = (  # where distributions install iPXE: Debian and Ubuntu; Fedora, openSUSE, Arch; Alpine
    "usr/lib/ipxe",
    "usr/share/ipxe",
    "usr/share/alpine-ipxe",
    "usr/lib/PXELINUX",
    "usr/lib/SYSLINUX.EFI",
    "usr/share/syslinux",
)
_MODULES = {  # PXELINUX's library, as each build asks for it, and where distributions install it
    "bios/ldlinux.c32": ("usr/lib/syslinux/modules/bios/ldlinux.c32", "usr/share/syslinux/ldlinux.c32"),
    "x86_64/ldlinux.e64": ("usr/lib/syslinux/modules/efi64/ldlinux.e64", "usr/share/syslinux/efi64/ldlinux.e64"),
    "i386/ldlinux.e32": ("usr/lib/syslinux/modules/efi32/ldlinux.e32", "usr/share/syslinux/efi32/ldlinux.e32"),
}


def _is_loader(path: str) -> bool:
    return path.endswith(_ENDINGS) and path.split("/", 1)[0] in ("usr", "boot")


def _installed(root: Path) -> list[Path]:
    found = _files([root / place for place in _PLACES], _ENDINGS)
    return [*found, *sorted((root / "boot").glob("ipxe*.efi"))]


def _files(places: Iterable[Path], endings: tuple[str, ...] = ("",)) -> list[Path]:
    """Regular files at or below these places, links followed, no directory twice, MAX_FILES at most for each."""
    found = []
    for place in places:
        here = [place] if place.is_file() else islice(place.rglob("*"), MAX_FILES * 10)
        named = sorted(path for path in here if path.name.endswith(endings) and path.is_file())
        # undionly.kkpxe differs from undionly.kpxe only in leaving the PXE stack in memory: never preferred
        found += sorted(named[:MAX_FILES], key=lambda path: path.suffix == ".kkpxe")
    return found


def _recognised(paths: Iterable[Path], origin: str) -> Iterator[Loader]:
    seen: set[str] = set()
    for path in paths:
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SIZE:
                    continue
                data = file.read(MAX_SIZE)
        except OSError:
            continue
        digest = hashlib.sha256(data).hexdigest()
        if digest in seen:  # ipxe.efi is often a link to ipxe-amd64.efi
            continue
        seen.add(digest)
        build = identify(data)
        if build is not None and (name := catalog_name(build)):
            yield Loader(name, path, len(data), digest, build, origin)


def _fetched(state: Path) -> Iterator[Loader]:
    for package in packages.kept(state):
        if package.name in (_PACKAGE, _MORE):
            origin = f"fetched: {package.name} {package.version} of {package.suite}, {package.verified}"
            whole = [file for path, file in package.files.items() if _is_loader(path) and packages.has(file, file.name)]
            yield from _recognised(whole, origin)


def _best(loaders: Iterable[Loader]) -> dict[str, Loader]:
    by_path = {str(loader.path): loader for loader in loaders}
    chosen = choose((path, loader.build) for path, loader in by_path.items())
    return {name: by_path[path] for name, (path, _) in chosen.items()}


def _abilities(build: Build) -> str:
    can = ", ".join(sorted(build.features))
    lacks = [what for what in ("https", "autoexec", "syslog") if what not in build.features]
    if build.architecture == "bios":
        lacks = [what for what in lacks if what != "autoexec"]  # EFI builds only
    return f"can: {can}" + (f"; cannot: {', '.join(lacks)}" if lacks else "")


def _advice(lacking: Iterable[str], error: str) -> Advice:
    names = {"bios": "BIOS PCs", "x86_64": "UEFI PCs", "arm64": "UEFI machines with 64-bit ARM"}
    who = ", ".join(names[platform] for platform in lacking)
    why = f" ({error})" if error else ""
    return Advice(f"no boot loader for {who}{why}", "bootwire assets fetch")


def _as_dict(loader: Loader) -> dict[str, object]:
    build = loader.build
    return {
        "name": loader.name,
        "path": str(loader.path),
        "octets": loader.size,
        "sha256": loader.digest,
        "origin": loader.origin,
        "kind": build.kind,
        "version": build.version,
        "architecture": build.architecture,
        "drivers": build.drivers,
        "features": sorted(build.features),
        "signers": list(build.signers),
    }
