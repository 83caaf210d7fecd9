"""Fleet mode: a file of machines and profiles decides, and is followed while the server runs.

What is in force is one value (`Loaded`), replaced whole when a changed file is good; a broken one is told, line by
line, and the old one stays. Documents and their secrets are in serve/documents.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bootwire import config
from bootwire.assets.catalog import Blob
from bootwire.assets.kernels import Image as Recognised
from bootwire.assets.kernels import Refusal, check_initrd, check_kernel
from bootwire.config import Fleet, Problem, Profile
from bootwire.facts import FleetLoaded, Warned
from bootwire.policy.rules import Match, Rule, Rules
from bootwire.policy.target import LOCAL, Decision, Image, Menu, Silence, Target, Traits
from bootwire.serve.content import Content, Later, Missing, Record, Reply, Upstream
from bootwire.serve.documents import Documents
from bootwire.serve.images import Images
from bootwire.serve.mode import Decider, House, Link, RenderError, Room, StartError
from bootwire.serve.seals import Seals
from bootwire.serve.sources import SourceError, examine, is_url
from bootwire.serve.static import suits
from bootwire.serve.templates import BadTemplate, Templates
from bootwire.serve.upstreams import Settings as UpstreamSettings
from bootwire.wire import bootinfo_text

LOOK_SECONDS = 1.0  # how often the file and what it names are looked at for changes
PROBLEMS = 20  # told of a broken file; the rest is counted


@dataclass(frozen=True, slots=True)
class Loaded:
    """A fleet file in force, with all that it names.

    targets    by profile: what is the same for every machine
    documents  by profile and name: the templates' text
    secrets    by profile and name: the value, or the file it is read from when it is handed out
    watched    files whose change makes us look again, with what they looked like before they were read
    """

    fleet: Fleet
    rules: Rules
    targets: Mapping[str, Target]
    documents: Mapping[str, Mapping[str, str]]
    watched: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        machines = sum(rule.machine for rule in self.fleet.rules)
        groups = len(self.fleet.rules) - machines
        return f"{_count(machines, 'machine')}, {_count(groups, 'group')}, {_count(len(self.targets), 'profile')}"


@dataclass(frozen=True, slots=True)
class Broken:
    """A fleet file that cannot be in force. watched: as in `Loaded`, files that are not there among them."""

    problems: Sequence[Problem]
    watched: Mapping[str, object]


def load(path: str, *, look: bool = True, upstream: UpstreamSettings | None = None) -> Loaded | Broken:
    """Read a fleet file and what it names. look: look at images, too (at URLs, for which it waits; upstream: how).

    Never raises for what is in the file; everything that is wrong comes back at once.
    """
    signature = {path: _signature(path)}
    try:
        text = Path(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        return Broken([Problem(path, 0, f"this is no UTF-8 text (octet {error.start})")], signature)
    except OSError as error:
        return Broken([Problem(path, 0, f"cannot be read: {error.strerror}")], signature)
    fleet = config.read(text, path)
    if not isinstance(fleet, Fleet):
        return Broken(fleet, signature)
    return _Loading(fleet, Path(path).absolute().parent, signature, look, upstream).loaded()


class _Loading:
    """What a good fleet file names: looked at, and everything wrong with it gathered."""

    def __init__(
        self,
        fleet: Fleet,
        folder: Path,
        watched: dict[str, object],
        look: bool,
        upstream: UpstreamSettings | None,
    ) -> None:
        self._upstream = upstream
        self._fleet = fleet
        self._folder = folder
        self._watched = watched
        self._look = look
        self._problems: list[Problem] = []
        self._warnings: list[str] = []
        self._templates = Templates()

    def loaded(self) -> Loaded | Broken:
        targets, documents = {}, {}
        for name, profile in self._fleet.profiles.items():
            targets[name] = self._target(name, profile)
            documents[name] = {key: self._text(name, file) for key, file in profile.documents.items()}
            for what, text in (("cmdline", profile.cmdline), ("message", profile.message), *documents[name].items()):
                if wrong := self._templates.check(text):
                    self._problem(name, f"{what} of profile {name} is no template: {wrong}")
        if self._problems:
            return Broken(self._problems, self._watched)
        warnings = tuple(self._warnings)
        return Loaded(self._fleet, Rules(self._fleet.rules), targets, documents, self._watched, warnings)

    def _target(self, name: str, profile: Profile) -> Target:
        found = {key: self._image(entry) for key, entry in config.images(profile)}
        initrds = [image for key, image in found.items() if key.startswith("initrd/")]
        files = {key.partition("/")[2]: image for key, image in found.items() if key.startswith("files/")}
        kernel = found.get("kernel")
        script = profile.script
        if profile.script_file:
            script = self._text(name, profile.script_file)
        if script:
            if not script.startswith("#!ipxe"):
                self._problem(name, f"the script of profile {name} does not begin with #!ipxe")
            if wrong := self._templates.check(script):
                self._problem(name, f"the script of profile {name} is no template: {wrong}")
        runs_on: frozenset[str] = frozenset()
        if kernel is not None:
            known = self._recognised(name, "kernel", kernel, None)
            runs_on = suits(known) if known is not None else runs_on
            for number, initrd in enumerate(initrds):
                self._recognised(name, f"initrd {number + 1}", initrd, known)
        for key, image in files.items():
            self._recognised(name, key, image, None, any_file=True)
        return Target(
            because="",
            profile=name,
            kernel=kernel,
            initrds=tuple(initrds),
            cmdline=profile.cmdline,
            message=profile.message,
            script=script,
            local=profile.local,
            suits=runs_on,
            menu=self._menu(profile),
            loader=profile.loader,
            program=profile.program,
            bootinfo=bootinfo_text.read(profile.bootinfo) if profile.bootinfo else None,
            files=files,
            variables={**profile.variables, **({"install": True, "done": profile.done} if profile.install else {})},
        )

    def _menu(self, profile: Profile) -> Menu | None:
        if not profile.menu:
            return None
        local = [name for name, other in self._fleet.profiles.items() if other.local]
        entries = tuple((LOCAL if name in local else name, title) for name, title in config.menu_entries(profile))
        return Menu(entries, profile.prompt, profile.seconds, profile.discovery)

    def _recognised(
        self, profile: str, what: str, image: Image, kernel: Recognised | None, any_file: bool = False
    ) -> Recognised | None:
        url = is_url(image.location)
        if url and not self._look:
            return None
        before = () if url else _signature(image.location)
        try:
            examined = examine(image.location, self._upstream)
        except SourceError as error:
            if url:
                self._warnings.append(f"{what} of profile {profile}: {error}")
            else:
                self._problem(
                    profile, f"{what} of profile {profile}: {error}", "give a path below the file's folder, or /…"
                )
                self._watched[image.location] = before
            return None
        if any_file:
            return None
        if what == "kernel":
            seen = check_kernel(examined.head, examined.size)
        else:
            seen = check_initrd(examined.head, examined.size, kernel)
        if isinstance(seen, Refusal):
            self._problem(profile, f"{what} of profile {profile}: {image.location}: {seen.because}")
            if not url:
                self._watched[image.location] = before
            return None
        if seen.warning:
            self._warnings.append(f"{what} of profile {profile}: {image.location}: {seen.warning}")
        return seen

    def _text(self, profile: str, file: str) -> str:
        """A template's text; a file beside the fleet file."""
        path = self._place(file)
        self._watched[path] = _signature(path)
        try:
            with open(path, "rb") as opened:
                raw = opened.read(config.MAX_TEXT + 1)
            if len(raw) > config.MAX_TEXT:
                self._problem(profile, f"{path} is longer than {config.MAX_TEXT >> 20} MiB")
                return ""
            return raw.decode("utf-8")
        except OSError as error:
            self._problem(profile, f"{path} of profile {profile} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self._problem(profile, f"{path} of profile {profile} is no UTF-8 text", "serve it with  files = …  instead")
        return ""

    def _image(self, entry: config.ImageEntry) -> Image:
        signed = (self._place(entry.signature), self._place(entry.keys)) if entry.signature else ()
        return Image(self._place(entry.location), entry.sha256, *signed)

    def _place(self, location: str) -> str:
        """An absolute path, or a URL."""
        return location if is_url(location) else os.path.normpath(self._folder / location.removeprefix("file://"))

    def _problem(self, profile: str, what: str, fix: str = "") -> None:
        self._problems.append(Problem(self._fleet.name, self._fleet.lines.get(profile, 0), what, fix))


@dataclass(frozen=True, slots=True)
class Choice:
    """What a fleet says of a machine. rule: the one that counts; match: all steps on the way."""

    decision: Decision
    match: Match
    rule: Rule | None = None
    name: str = ""


def choose(loaded: Loaded, traits: Traits) -> Choice:
    """The decision for a machine, and why. The same values give the same answer."""
    final = traits.stage in ("script", "other")
    match = loaded.rules.match(traits, final)
    name = next((rule.name for rule in match.applying if rule.machine), traits.machine.replace(":", "-"))
    rule = next((rule for rule in match.applying if rule.profile), None)
    perhaps = next((rule for rule in match.maybe if rule.profile), None)
    if perhaps is not None and (rule is None or perhaps.rank < rule.rank):
        because = f"{perhaps.title} may be about it: more is known when its loader asks"
        base = loaded.targets[perhaps.profile]
        target = Target(because, perhaps.profile, loader=base.loader, program=base.program)
        return Choice(target, match, perhaps, name)
    if rule is None:
        return Choice(Silence(f"no rule of {loaded.fleet.name} with a profile is about it"), match, None, name)
    (step,) = (step for step in match.trail if step.rule is rule)
    target = _made(loaded, rule.profile, traits, match, name)
    because = f"{rule.title}: {step.because}"
    if target.menu is not None and (traits.choice or final):
        wanted = traits.choice or target.menu.entries[0][0]
        how = "chosen in its menu" if traits.choice else "the first of its menu"
        if wanted == LOCAL:
            return Choice(Target(f"{because}; {how}", local=True), match, rule, name)
        target = _made(loaded, wanted, traits, match, name)
        because = f"{because}; {how}"
    return Choice(replace(target, because=because), match, rule, name)


def named(loaded: Loaded, profile: str, traits: Traits) -> Target | None:
    """What a machine gets of a profile whatever its rules say; None where there is no such profile."""
    if profile not in loaded.targets:
        return None
    match = loaded.rules.match(traits, final=True)
    name = next((rule.name for rule in match.applying if rule.machine), traits.machine.replace(":", "-"))
    target = _made(loaded, profile, traits, match, name)
    return replace(target, because=f"profile {profile}, which it was armed with")


def _made(loaded: Loaded, profile: str, traits: Traits, match: Match, name: str) -> Target:
    """A profile's target with all variables of one machine."""
    base = loaded.targets[profile]
    variables: dict[str, object] = {**loaded.fleet.variables}
    for key, network in loaded.fleet.networks.items():
        if _inside(traits, network.subnet):
            variables |= {"network": key, **network.variables}
    variables |= base.variables
    for applying in reversed(match.applying):
        variables |= applying.variables
    variables["name"] = name
    return replace(base, variables=variables)


class FleetDecider:
    """Decides by what is in force. `loaded` may be replaced at any time; any thread."""

    def __init__(self, loaded: Loaded, templates: Templates, documents: Documents) -> None:
        self.loaded = loaded
        self._templates = templates
        self._documents = documents

    @property
    def smbios(self) -> bool:
        return self.loaded.rules.smbios

    def known(self, traits: Traits) -> Decision:
        return choose(self.loaded, traits).decision

    async def ask(self, traits: Traits) -> None:
        pass

    def render(self, target: Target, traits: Traits, link: Link) -> Target:
        values = self._documents.values(target, traits, link)
        try:
            return replace(
                target,
                cmdline=_one_line(self._templates.render(target.cmdline, values)),
                message=self._templates.render(target.message, values),
                script=self._templates.render(target.script, values),
            )
        except BadTemplate as error:
            raise RenderError(f"profile {target.profile}: {error}") from None


class FleetMode:
    """`bootwire serve fleet.toml`. look: at images that live at URLs, too.

    Raises StartError (status 2) with everything that is wrong with the file.
    """

    def __init__(self, path: str, images: Images, *, look: bool = True) -> None:
        loaded = load(path, look=look, upstream=images.upstreams.settings)
        if not isinstance(loaded, Loaded):
            raise StartError(problems_text(loaded.problems), 2)
        self._path = path
        self._look = look
        self._images = images
        self._record: Record = lambda fact: None
        self._loaded = loaded
        self._watched = loaded.watched
        self._broken = ""
        templates = Templates()
        self._documents = Documents(images.seals, templates, lambda: self._loaded.documents, self._secrets, images.link)
        self._decider = FleetDecider(loaded, templates, self._documents)
        self.decider: Decider = self._decider
        self._documents.decide = self._decider.known
        self.catalog: Mapping[str, Blob] = {}
        self.rooms: Mapping[str, Room] = {"image": images.room, "doc": self._documents.room}
        self.upstreams = images.upstreams
        self.seals: Seals | None = images.seals
        menus = [target.menu for target in loaded.targets.values()]
        self.multicast = any(menu is not None and menu.discovery == "multicast" for menu in menus)
        self.lines: Sequence[str] = (f"Fleet     {path}: {loaded.summary}",)
        self.warnings: Sequence[str] = loaded.warnings
        self._watching: asyncio.Task[None] | None = None
        self._loading = asyncio.Lock()

    @property
    def loaded(self) -> Loaded:
        """What is in force."""
        return self._loaded

    def link(self, machine: str, base: str) -> Link:
        return self._images.link(machine, base)

    def give(self, image: Image, name: str, machine: str) -> Content | Missing | Reply | Upstream | Later:
        return self._images.give(image, name, machine)

    def named(self, profile: str, traits: Traits) -> Target | None:
        return named(self._loaded, profile, traits)

    def installing(self) -> Sequence[str]:
        return sorted(name for name, target in self._loaded.targets.items() if target.variables.get("install"))

    def open(self, house: House) -> None:
        self._record = house.record
        self._images.open(house)
        self._documents.open(house)
        self._watching = house.control.create_task(self._watch())

    async def reload(self) -> None:
        """Look at the file again, whether it seems to have changed or not."""
        async with self._loading:
            found = await asyncio.to_thread(load, self._path, look=self._look, upstream=self.upstreams.settings)
            self._take(found)

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._images.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if any(_signature(path) != before for path, before in self._watched.items()):
                await self.reload()

    def _take(self, found: Loaded | Broken) -> None:
        self._watched = found.watched
        if isinstance(found, Loaded):
            self._loaded = self._decider.loaded = found
            self._broken = ""
            self._record(FleetLoaded("", self._path, found.summary))
            for what in found.warnings:
                self._record(Warned("", what))
            return
        text = problems_text(found.problems)
        if text == self._broken:
            return
        self._broken = text
        for problem in found.problems[:PROBLEMS]:
            self._record(Warned("", f"{problem.file}:{problem.line}: {problem.what}", problem.fix))
        count = len(found.problems)
        more = f" ({count - PROBLEMS} more mistakes)" if count > PROBLEMS else ""
        self._record(
            Warned(
                "", f"{self._path} is broken{more}: what was in force before stays", "mend it; it is looked at again"
            )
        )

    def _secrets(self) -> Mapping[str, Mapping[str, str]]:
        folder = Path(self._path).absolute().parent
        return {
            name: {key: str(folder / file) for key, file in profile.secrets.items()}
            for name, profile in self._loaded.fleet.profiles.items()
        }


def problems_text(problems: Sequence[Problem]) -> str:
    """All of them, for a person."""
    what = "one mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return "\n  ".join((f"{what} in the fleet file", *(str(problem) for problem in problems)))


def _signature(path: str) -> object:
    """What a file looks like from outside; it changes when its octets do."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return status.st_ino, status.st_size, status.st_mtime_ns
    return ()


def _inside(traits: Traits, subnet: str | list[str]) -> bool:
    from bootwire.policy.rules import subnet_condition

    return bool(subnet_condition("network", subnet if isinstance(subnet, list) else [subnet], "").test(traits))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
