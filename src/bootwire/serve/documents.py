"""Documents that machines fetch after their kernel: cloud-init, Ignition, kickstart, preseed; and secrets, given once.

A document's URL holds a token for one machine and one boot. A document with secrets in it is given once: who comes
again with the same token is refused, and both are told. A boot that DHCP showed has one token, however often its script
is asked for; where DHCP showed none, or another address than the one that asks, the token opens documents without
secrets and says why.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

from bootwire.engine.lru import Lru
from bootwire.facts import DocumentServed, Warned
from bootwire.policy.target import Decision, Target, Traits
from bootwire.serve.content import Missing, Peer, Record, Reply
from bootwire.serve.mode import House, Link
from bootwire.serve.seals import Seals
from bootwire.serve.templates import BadTemplate, Templates
from bootwire.wire.http import Request

ROOM = "doc"  # first part of the path
LIFETIME = 6 * 3600.0  # seconds: the longest installation that still fetches something
USED = 65_536  # tokens remembered that were used; more than are made within LIFETIME
TOKENS = 8_192  # of boots that DHCP showed; twice the machines that are remembered
SECRET_OCTETS = 64 * 1024  # of a secret's file

REMEDY = "make the machine boot anew by DHCP; where a relay takes that elsewhere, let it bring this server a copy, too"

_TYPES = {".json": "application/json", ".ign": "application/json", ".yaml": "text/yaml", ".yml": "text/yaml"}


class Documents:
    """Makes values for templates, and answers below ROOM. Any thread.

    texts    by profile and name, what is in force now
    secrets  by profile and name, the files they are in
    link     where a machine gets images from, by its MAC and our base URL
    decide   what a machine boots now, for the variables of its documents
    """

    def __init__(
        self,
        seals: Seals,
        templates: Templates,
        texts: Callable[[], Mapping[str, Mapping[str, str]]],
        secrets: Callable[[], Mapping[str, Mapping[str, str]]],
        link: Callable[[str, str], Link],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._seals = seals
        self._templates = templates
        self._texts = texts
        self._secrets = secrets
        self._wall = wall
        self._record: Record = lambda fact: None
        self._machine_at: Callable[[str], str] = lambda _: ""
        self._traits_of: Callable[[str], Traits | None] = lambda _: None
        self._link = link
        self._base: Callable[[str], str] = lambda ours: f"http://{ours}"
        self._used: OrderedDict[str, str] = OrderedDict()  # token and name -> when and by whom
        self._tokens: Lru[tuple[str, int, str], str] = Lru(TOKENS)  # by MAC, boot and profile
        self._lock = threading.Lock()
        self.decide: Callable[[Traits], Decision | None] | None = None
        self._home: Callable[[str, str], str] = lambda machine, base: ""

    def open(self, house: House) -> None:
        self._record = house.record
        self._machine_at = house.boot_server.machine_at
        self._traits_of = house.boot_server.traits_of
        self._base = house.base
        if house.decide is not None:
            self.decide = house.decide
        if house.phone_home is not None:
            self._home = house.phone_home

    def values(
        self, target: Target, traits: Traits, link: Link, secret: Callable[[str], str] | None = None, token: str = ""
    ) -> dict[str, object]:
        """What templates of this machine may use.

        token: of the document they are in, whose documents share it; "" for a new one, of a new boot
        """

        def seed() -> str:
            nonlocal token
            token = token or self._token(traits, target.profile)
            return f"{link.base}/{ROOM}/{token}/"

        def url(name: str) -> str:
            if name in target.files:
                return link(target.files[name], f"files/{name}")
            if name in self._texts().get(target.profile, {}):
                return seed() + name
            raise ValueError(f"profile {target.profile} has no document or file called {name!r}")

        def no_secret(name: str) -> str:
            raise ValueError("secrets are for documents: a command line can be read by everybody on the machine")

        return {
            **target.variables,
            "mac": traits.machine,
            "uuid": traits.uuid,
            "serial": traits.serial,
            "manufacturer": traits.manufacturer,
            "product": traits.product,
            "arch": traits.platform,
            "firmware": traits.firmware,
            "address": traits.address,
            "relay": traits.relay,
            "circuit_id": traits.circuit_id,
            "remote_id": traits.remote_id,
            "profile": target.profile,
            "base": link.base,
            "server": link.base.removeprefix("http://").partition(":")[0],
            "url": url,
            "seed": seed,
            "secret": secret or no_secret,
            "phone_home": self._home(traits.machine, link.base),
        }

    def _token(self, traits: Traits, profile: str) -> str:
        """One for each boot that DHCP showed; else one that says why it opens no secrets."""
        now = self._wall()
        if not traits.boot:
            why = traits.unproved or "who asked is not known to be it"
            return self._seals.seal(ROOM, traits.machine, (profile, why), now, LIFETIME)
        key = traits.machine, traits.boot, profile
        with self._lock:
            token = self._tokens.get(key) or self._seals.seal(ROOM, traits.machine, (profile, ""), now, LIFETIME)
            self._tokens.put(key, token)
        return token

    def room(self, rest: str, request: Request, peer: Peer) -> Missing | Reply:
        here = self._machine_at(peer.address)
        token, _, name = rest.partition("/")
        sealed = self._seals.open(ROOM, token, self._wall())
        if isinstance(sealed, str):
            return Missing(sealed, here, forbidden=True)
        machine = sealed.machine or here
        if here and sealed.machine and here != sealed.machine:
            return Missing(f"this URL was made for {sealed.machine}, not for {here}", here, forbidden=True)
        profile, unproved = sealed.what if len(sealed.what) == 2 else (sealed.what[0], "the URL is an old server's")
        text = self._texts().get(profile, {}).get(name)
        if text is None:
            return Missing(f"profile {profile} has no document called {name!r}", machine)
        return self._made(profile, name, text, token, machine, unproved, request, peer)

    def _made(
        self, profile: str, name: str, text: str, token: str, machine: str, unproved: str, request: Request, peer: Peer
    ) -> Missing | Reply:
        traits = replace(
            self._traits_of(machine) or Traits(machine, link=peer.ours), address=peer.address, stage="other"
        )
        decision = self.decide(traits) if self.decide else None
        target = decision if isinstance(decision, Target) and decision.profile == profile else Target("", profile)
        given: list[str] = []
        which = hashlib.sha256(f"{token}/{name}".encode()).hexdigest()
        with self._lock:
            before = self._used.get(which, "")

        def secret(key: str) -> str:
            if unproved:
                raise _Unproved(unproved)
            if before:
                raise _Again(before)
            value = self._read(profile, key)
            given.append(key)
            return value

        values = self.values(target, traits, self._link(machine, self._base(peer.ours)), secret, token)
        try:
            body = self._templates.render(text, values).encode("utf-8", "replace")
        except BadTemplate as error:
            if before and str(error).startswith(_Again.WORDS):
                return Missing(f"{_Again.WORDS} {before}: make the machine boot anew", machine, forbidden=True)
            fix = REMEDY if str(error).startswith(_Unproved.WORDS) else "mend the template"
            self._record(Warned(machine, f"{name} of profile {profile} could not be made: {error}", fix))
            return Missing(f"{name} could not be made: {error}", machine)
        if request.method == "GET":
            if given:
                with self._lock:
                    self._used[which] = (
                        f"at {time.strftime('%H:%M:%S', time.localtime(self._wall()))} to {peer.address}"
                    )
                    while len(self._used) > USED:
                        self._used.popitem(last=False)
            told = ", ".join(dict.fromkeys(given))
            self._record(DocumentServed(machine, name, peer.address, len(body), profile, told))
        return Reply(200, body, _TYPES.get(os.path.splitext(name)[1], "text/plain"), machine=machine)

    def _read(self, profile: str, key: str) -> str:
        path = self._secrets().get(profile, {}).get(key)
        if path is None:
            raise ValueError(f"profile {profile} has no secret called {key!r}")
        try:
            with open(path, "rb") as file:
                return file.read(SECRET_OCTETS).decode("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the secret {key!r} cannot be read: {error}") from None


class _Unproved(ValueError):
    """A secret is asked for with a token of a boot that DHCP did not show."""

    WORDS = "it gets no secrets"

    def __init__(self, why: str) -> None:
        super().__init__(f"{self.WORDS}: when its boot script was asked for, {why}")


class _Again(ValueError):
    """A secret is asked for a second time with the same token."""

    WORDS = "its secrets were handed out already"

    def __init__(self, before: str) -> None:
        super().__init__(f"{self.WORDS} {before}")
