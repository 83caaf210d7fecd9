"""The boot API: what an HTTP service says that a machine boots, read into a Target (Pixiecore's API and more).

Pixiecore's README.api.md is the base: kernel, initrd, cmdline (text, or the old object), message, ipxe-script. Where
Pixiecore takes what makes no sense, this refuses it with a reason (docs/reference/boot-api.md has the table).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlencode, urljoin, urlsplit

from bootwire.policy import go_template
from bootwire.policy.target import Image, Target, Traits
from bootwire.wire import bootinfo_text
from bootwire.wire.bootinfo import Boot
from bootwire.wire.text import printable

MAX_ANSWER = 1 << 20
"""Octets of an answer that are looked at: Ignition documents inline in a cmdline stay far below."""
MAX_INITRDS = 64
MAX_URL = 8 * 1024  # characters
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Wrong:
    """The service's answer cannot be used."""

    because: str


def boot_url(prefix: str, machine: str) -> str:
    """Where a machine's answer is: boot_url("http://host/api", "52:…") is "http://host/api/v1/boot/52:54:…"."""
    return f"{prefix.rstrip('/')}/v1/boot/{machine}"


def about(traits: Traits) -> str:
    """What is known of the machine, as a query: Pixiecore says the MAC alone. Empty values are left out."""
    said = {
        "arch": traits.platform,
        "architecture": str(traits.architecture) if traits.architecture >= 0 else "",
        "firmware": traits.firmware,
        "loader": traits.loader,
        "uuid": traits.uuid,
        "serial": traits.serial,
        "manufacturer": traits.manufacturer,
        "product": traits.product,
        "vendor-class": traits.vendor_class,
        "network": traits.link,
        "address": traits.address,
        "interface": traits.interface,
        "relay": traits.relay,
        "circuit-id": traits.circuit_id,
        "remote-id": traits.remote_id,
        "stage": traits.stage,
    }
    return urlencode({name: value for name, value in said.items() if value})


def read_answer(body: bytes, prefix: str) -> Target | Wrong:
    """What a 200 answer's octets say. The target's cmdline is a template for `expand_cmdline`.

    Names are compared without regard to case and unknown ones are left alone, as Go's encoding/json does; what stands
    behind the JSON object is not looked at, as Go's decoder does not.
    """
    if len(body) > MAX_ANSWER:
        return Wrong(f"the answer is longer than {MAX_ANSWER >> 20} MiB")
    try:
        said, _ = json.JSONDecoder().raw_decode(body.decode("utf-8-sig").lstrip(" \t\r\n"))
        if b"\\ud" in body.lower():  # halves of surrogate pairs are U+FFFD, as Go's decoder has it
            whole = json.dumps(said, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
            said = json.loads(whole.decode("utf-16-le", "replace"))
    except UnicodeDecodeError:
        return Wrong("the answer is no UTF-8 text")
    except RecursionError:
        return Wrong("the answer is nested too deeply")
    except ValueError as error:
        return Wrong(f"the answer is no JSON: {printable(str(error), 100)}")
    if not isinstance(said, dict):
        return Wrong(f"the answer is {_kind(said)} where a JSON object should be")
    try:
        fields = _Fields(said)
        boot = _bootinfo(fields.text("bootinfo"))
        return replace(_target(fields, prefix, bootinfo_alone=boot is not None), bootinfo=boot)
    except _Bad as bad:
        return Wrong(str(bad))


def expand_cmdline(
    cmdline: str, prefix: str, link: Mapping[str, go_template.Function], words: Mapping[str, str] | None = None
) -> str:
    """The kernel command line for one machine.

    link: what URL and ID do with a location that was resolved; words: what stands for itself ({{ PHONE_HOME }}).

    Raises go_template.TemplateError; a line break in what comes out is one, too (Pixiecore: "couldn't get a boot
    script").
    """

    def resolved(function: go_template.Function) -> go_template.Function:
        def call(location: str) -> str:
            try:
                return function(locate(location, prefix))
            except _Bad as bad:
                raise go_template.TemplateError(str(bad)) from None

        return call

    functions = {name: resolved(function) for name, function in link.items()}
    text = go_template.expand(cmdline, functions, words or {})
    if "\n" in text:
        raise go_template.TemplateError("the command line has a line break")
    return text


def locate(location: str, prefix: str) -> str:
    """Absolute path or http(s) URL of what the service calls `location`; relative ones start at `prefix`/v1.

    "/k" is at the root of the service's host, "i1" beside v1, "file:///srv/k" a file of this machine.
    """
    if not location or len(location) > MAX_URL or any(c <= " " or c == "\x7f" for c in location):
        raise _Bad(f"{printable(location, 60)!r} is no URL")
    try:
        absolute = urljoin(f"{prefix.rstrip('/')}/v1", location)
        parts = urlsplit(absolute if urlsplit(location).scheme not in ("http", "https") else location)
    except ValueError:
        raise _Bad(f"{printable(location, 60)!r} is no URL") from None
    if parts.scheme == "file":
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
            raise _Bad(f"{printable(location, 60)!r} names no file of this machine: write file:///path")
        return path
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _Bad(f"{printable(location, 60)!r} is neither http, https nor file")
    return absolute


class _Bad(Exception):
    """Why the answer cannot be used."""


class _Fields:
    """A JSON object whose names are compared without regard to case; one that fits exactly counts more."""

    def __init__(self, said: dict[str, object]) -> None:
        self._exact = said
        self._folded = {name.casefold(): value for name, value in said.items()}

    def get(self, name: str) -> object:
        return self._exact[name] if name in self._exact else self._folded.get(name.casefold())

    def text(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise _Bad(f"{name} is {_kind(value)} where a text should be")
        return value


def _bootinfo(text: str) -> Boot | None:
    """What the machine is told if it asks by bootinfo, None if the service does not say."""
    try:
        return bootinfo_text.read(text) if text else None
    except ValueError as error:
        raise _Bad(f"bootinfo: {error}") from None


def _target(said: _Fields, prefix: str, *, bootinfo_alone: bool) -> Target:
    because = "the boot service says so"
    if note := said.text("because"):
        because = f"the boot service says: {printable(note, 120)}"
    profile = printable(said.text("profile"), 60)
    if script := said.text("ipxe-script"):
        return Target(because, profile, script=script)
    if said.get("local") is True:
        return Target(because, profile, local=True)
    given = said.get("kernel")
    if given is None or given == "":
        if bootinfo_alone:
            return Target(because, profile)
        raise _Bad("the answer names no kernel")
    initrds = said.get("initrd")
    if initrds is None:
        initrds = []
    elif not isinstance(initrds, list):
        raise _Bad(f"initrd is {_kind(initrds)} where a list should be")
    if len(initrds) > MAX_INITRDS:
        raise _Bad(f"more than {MAX_INITRDS} initrds")
    install: dict[str, object] = {"install": True} if said.get("install") is True else {}
    if said.get("done") == "hand-over":
        install["done"] = "hand-over"
    return Target(
        because,
        profile,
        variables=install,
        kernel=_image(given, "kernel", prefix),
        initrds=tuple(_image(initrd, "initrd", prefix) for initrd in initrds),
        cmdline=_cmdline(said.get("cmdline")),
        message=said.text("message"),
    )


def _image(given: object, what: str, prefix: str) -> Image:
    """A URL, or {"url": …, "sha256": …}, which Pixiecore does not know."""
    digest = ""
    if isinstance(given, dict):
        fields = _Fields(given)
        given, digest = fields.text("url"), fields.text("sha256").lower()
        if digest and not _SHA256.fullmatch(digest):
            raise _Bad(f"the sha256 of {what} is no 64 hexadecimal digits")
    if not isinstance(given, str):
        raise _Bad(f"{what} is {_kind(given)} where a URL should be")
    return Image(locate(given, prefix), digest)


def _cmdline(given: object) -> str:
    if given is None:
        return ""
    if isinstance(given, str):
        return given
    if not isinstance(given, dict):
        raise _Bad(f"cmdline is {_kind(given)} where a text should be")
    words = [_word(str(name), given[name]) for name in sorted(given)]
    return " ".join(words)


def _word(name: str, value: object) -> str:
    """One entry of the old object form: its order and its quotes are Pixiecore's (booters.go)."""
    key = go_template.literal(name)
    if isinstance(value, bool):
        return key
    if isinstance(value, str):
        return f"{key}={go_template.literal(go_template.quote(value))}"
    if isinstance(value, dict) and isinstance(url := _Fields(value).get("url"), str):
        return f"{key}={{{{ URL {go_template.quote(url)} }}}}"
    raise _Bad(f'cmdline entry {printable(name, 40)!r} is {_kind(value)}: it takes a text, true, or {{"url": …}}')


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"
