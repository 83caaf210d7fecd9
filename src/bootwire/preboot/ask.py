"""`bootwire ask`: what a machine does that asks by bootinfo, in real time over anybody's sockets."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable

from bootwire.engine import US, S
from bootwire.engine.bootinfo_client import Client, Effect, Failed, Ignored, Outcome, Send, Settings, Told, WaitsNow
from bootwire.preboot.transport import Transport
from bootwire.wire import bootinfo as wire
from bootwire.wire import bootinfo_keys
from bootwire.wire.bootinfo import (
    Action,
    Auto,
    Boot,
    DiskPartition,
    MemoryFs,
    Multiboot,
    Partition,
    Reboot,
    Restart,
    SystemId,
    Unknown,
    Wait,
)
from bootwire.wire.bootinfo_text import read, say

_LARGEST = 2_048  # octets of a datagram looked at


def run(transport: Transport, settings: Settings, tell: Callable[[str], None]) -> Outcome:
    """Ask until there is an outcome. tell: takes lines about what happens meanwhile. OSError: no socket to ask from."""
    client = Client(settings)
    sock = transport.datagrams(settings.server, wire.CLIENT_PORT)
    try:
        _do(client, client.start(time.monotonic_ns()), sock.sendto, tell)
        while client.outcome is None:
            now = time.monotonic_ns()
            due = client.deadline
            if due is not None and due <= now:
                if not client.waiting:
                    tell(f"no answer from {settings.server} yet")
                _do(client, client.tick(now), sock.sendto, tell)
                continue
            sock.settimeout(None if due is None else (due - now) / S)
            try:
                data, source = sock.recvfrom(_LARGEST)
            except TimeoutError:
                continue
            effects = client.receive(data, (source[0], source[1]), time.monotonic_ns())
            _do(client, effects, sock.sendto, tell)
    finally:
        sock.close()
    return client.outcome


def command(
    transport: Transport,
    server: str,
    as_json: bool,
    say_line: Callable[[str], None],
    tell: Callable[[str], None],
    *,
    wait: bool,
    keep_asking: bool,
    fallback: str | None,
    host_key: str,
    keys: str | None,
    identity: str | None,
) -> int:
    """`bootwire ask`: say on one line what is to be done. Status 0 if there is something, the fallback included.

    Raises ValueError for wrong input, OSError.
    """
    if not server:
        raise ValueError("which server shall be asked? bootwire ask SERVER, or with --nic whom DHCP names")
    who, key = _key(keys, identity)
    found = next((address for address in transport.resolve(server) if ":" not in address), None)
    if found is None:
        raise ValueError(f"{server} has no IPv4 address, and bootinfo knows no other")
    epoch_us = (time.time_ns() - time.monotonic_ns()) // US
    settings = Settings(
        found,
        host_key.encode(),
        who,
        key,
        epoch_us,
        patience=None if keep_asking else 1,
        wait=wait,
        fallback=None if fallback is None else read(fallback),
    )
    began = time.monotonic()
    try:
        outcome = run(transport, settings, tell)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise OSError(f"UDP port {wire.CLIENT_PORT} is taken, and answers come to no other: who else asks?") from None
    told = {"server": found, **described(outcome), "seconds": round(time.monotonic() - began, 3)}
    if as_json:
        say_line(json.dumps(told))
    elif told["text"] is not None:
        say_line(str(told["text"]))
    if isinstance(outcome, Failed):
        tell(outcome.because + ("; this is the fallback" if outcome.fallback else ""))
    return 0 if told["text"] is not None else 1


def _key(keys: str | None, identity: str | None) -> tuple[str, bytes]:
    """Whose name and key to seal with; ("", b"") without."""
    if keys is None:
        if identity is not None:
            raise ValueError("--identity needs --keys FILE")
        return "", b""
    with open(keys, "rb") as file:
        held = bootinfo_keys.parse(file.read(bootinfo_keys.LARGEST + 1), keys)
    name = identity or next((each for each in held if each != "*"), "")
    if not name:
        raise ValueError(f"{keys} names no identity; say which is ours with --identity")
    key = held.get(name) or held.get("*")
    if key is None:
        raise ValueError(f"{keys} has no key for {name}")
    return name, key


def described(outcome: Outcome) -> dict[str, object]:
    """One JSON object: what to do (null if nothing), by what that is known, and because."""
    match outcome:
        case Told(boot, by):
            return {**_boot(boot), "by": by, "because": ""}
        case Failed(because, fallback):
            told = _boot(fallback) if fallback else {"text": None, "type": None, "cmdline": ""}
            return {**told, "by": "fallback" if fallback else None, "because": because}


def _boot(boot: Boot) -> dict[str, object]:
    return {
        "text": say(boot),
        **_fields(boot.action),
        "cmdline": boot.command_line.decode("utf-8", "backslashreplace"),
    }


def _fields(action: Action) -> dict[str, object]:
    match action:
        case Partition(number):
            return {"type": "partition", "partition": number}
        case SystemId(number):
            return {"type": "system-id", "system_id": number}
        case Multiboot(server, file):
            return {"type": "multiboot", "server": server, "file": file.decode("utf-8", "backslashreplace")}
        case DiskPartition(disk, partition):
            return {"type": "disk-partition", "disk": disk, "partition": partition}
        case MemoryFs(path):
            return {"type": "memory", "path": path.decode("utf-8", "backslashreplace")}
        case Unknown(kind):
            return {"type": "unknown", "number": kind}
        case Wait() | Reboot() | Auto() | Restart():
            return {"type": type(action).__name__.lower()}


def _do(
    client: Client, effects: list[Effect], send: Callable[[bytes, tuple[str, int]], int], tell: Callable[[str], None]
) -> None:
    server = client.settings.server
    for effect in effects:
        match effect:
            case Send(data):
                try:
                    send(data, (server, wire.SERVER_PORT))
                except OSError as error:  # no route just now: it is asked again
                    tell(f"cannot ask {server}: {error.strerror or error}")
            case WaitsNow():
                tell(f"{server} says to wait; an order will come")
            case Ignored(because):
                tell(f"ignored: {because}")
