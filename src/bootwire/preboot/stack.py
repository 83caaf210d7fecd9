"""A host on a network card: the loop that carries frames between `engine.ip.Host` and a `Nic`, and waits.

Either a thread of its own runs the loop, and users in other threads wait for it; or (threaded=False) whoever waits
runs it, which is what a one-shot program wants: no hand-over between threads, and nothing happens behind its back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from bootwire.engine import MS, Ns, S
from bootwire.engine.dhcp6_client import Wants
from bootwire.engine.ip import EchoReply, Host, Undelivered
from bootwire.engine.tcp import Config
from bootwire.preboot.dhcp import Dhcp, Network, Stage
from bootwire.preboot.dhcp6 import Dhcp6, Network6
from bootwire.preboot.nic import Nic
from bootwire.wire import ip, ip6
from bootwire.wire.reader import WireError

_ADDRESS = Wants()
_BURST = 64  # frames taken from the card before others get a turn


class Undeliverable(OSError):
    """An echo request did not arrive. by: who said so, "" where nobody answers ARP or ND for the next hop."""

    def __init__(self, because: str, by: str) -> None:
        super().__init__(errno.EHOSTUNREACH, because)
        self.by = by


class Agent(Protocol):
    """Something that lives on the host, such as `dhcp.Dhcp`: its turn comes after every frame, and at its deadline."""

    @property
    def deadline(self) -> Ns | None: ...
    def turn(self, now: Ns) -> None: ...


class Stack:
    """A TCP/IP stack of our own on `nic`. Use it as a context manager, or `start` and `close`.

    host    the engine; touch it only inside `acting`
    agents  what else has its turn in the loop; append to it inside `acting`
    vlan    the 802.1Q VLAN that it is on, None for frames without a tag
    changed functions called after every turn that may have changed something, in the loop's thread; must not block
    """

    def __init__(
        self,
        nic: Nic,
        *,
        threaded: bool = True,
        secret: bytes | None = None,
        tcp: Config | None = None,
        vlan: int | None = None,
    ) -> None:
        self.nic = nic
        self.changed: list[Callable[[], None]] = []
        self.agents: list[Agent] = []
        self._threaded, self._secret, self._tcp, self._vlan = threaded, secret, tcp, vlan
        self._lock = threading.RLock()
        self._turned = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._poll = select.poll()
        self._asleep_until: Ns | None = 0  # the deadline that the loop knows of
        self._running = False
        self._error: BaseException | None = None
        self.host: Host = Host(nic.mac, bytes(32))  # replaced by start, when the card's MTU is known

    def start(self) -> Stack:
        """Open the card and begin. OSError as `Nic.open`."""
        self.nic.open()
        secret = self._secret or os.urandom(32)
        self.host = Host(self.nic.mac, secret, mtu=self.nic.mtu, offload=self.nic.offload, vlan=self._vlan)
        if self._tcp is not None:
            self.host.tcp = self._tcp
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self.nic.fileno(), select.POLLIN)
        self._running = True
        if self._threaded:
            self._poll.register(self._wake, select.POLLIN)
            self._thread = threading.Thread(target=self._run, name="bootwire-stack", daemon=True)
            self._thread.start()
        return self

    def close(self) -> None:
        """Stop at once: connections are not closed for their peers' sake."""
        if not self._running:
            return
        self._running = False
        if self._thread is not None:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._thread = None
        with self._lock:
            self._turned.notify_all()
        self.nic.close()
        os.close(self._wake)

    def __enter__(self) -> Stack:
        return self.start() if not self._running else self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- configuration --------------------------------------------------------------------------------------------

    def add_address(self, text: str, *, probe: bool = False) -> None:
        """Take an address: "10.0.0.2/24", "2001:db8::2/64"."""
        address, _, prefix = text.partition("/")
        octets = packed(address)
        with self.acting() as now:
            self.host.add_address(octets, int(prefix or 8 * len(octets)), now, probe=probe)

    def start_ipv6(self) -> None:
        """Take a link-local address and those that routers on the link advertise."""
        with self.acting() as now:
            self.host.start_ipv6(now)

    def add_route(self, network: str, gateway: str | None) -> None:
        """network: "0.0.0.0/0" or "default", "10.1.0.0/16", "::/0"."""
        text, _, prefix = ("0.0.0.0/0" if network == "default" else network).partition("/")
        octets = packed(text)
        with self.acting():
            self.host.routes.add(octets, int(prefix or 8 * len(octets)), packed(gateway) if gateway else None)

    def ping(
        self, address: str, *, timeout: float = 2.0, size: int = 56, identifier: int = 1, sequence: int = 1,
        whole: bool = False,
    ) -> float:  # fmt: skip
        """Seconds until `address` answered. OSError with the reason if it did not. whole: never in fragments."""
        target = packed(address)
        data = bytes(i & 0xFF for i in range(size))
        with self.acting() as now:
            trouble = self.host.ping(target, identifier, sequence, now, data, whole=whole)
        if trouble:
            raise OSError(trouble)
        found: list[EchoReply | Undelivered] = []

        def answered() -> bool:
            for event in list(self.host.events):
                match event:
                    case EchoReply(source, i, s) if (source, i, s) == (target, identifier, sequence):
                        found.append(event)
                    case Undelivered(destination=destination) if destination == target:
                        found.append(event)
                    case _:
                        continue
                self.host.events.remove(event)
            return bool(found)

        began = time.monotonic_ns()
        if not self.wait(answered, timeout):
            raise TimeoutError("no answer")
        if isinstance(found[0], Undelivered):
            raise Undeliverable(found[0].because, text(found[0].by) if found[0].by else "")
        if found[0].data != data:
            raise OSError("the answer holds other octets than the question")
        return (time.monotonic_ns() - began) / S

    def obtain(self, timeout: float = 20.0, *, vendor_class: str = "", host_name: str = "") -> Network:
        """Configure by DHCP, and stay so: the lease is renewed as long as the stack runs. OSError with the reason.

        A lease from an earlier call is given back first.
        """
        self.give_up()
        agent = Dhcp(self.host, vendor_class=vendor_class, host_name=host_name)
        with self.acting() as now:
            agent.start(now)
            self.agents.append(agent)
        self.wait(lambda: agent.stage in (Stage.DONE, Stage.FAILED), timeout)
        with self.acting() as now:
            if agent.stage is Stage.DONE and agent.network is not None:
                return agent.network
            self.agents.remove(agent)
            because = agent.because or ("no DHCP server answered" if not agent.heard else agent.stage.value)
            agent.stop(now)
        raise OSError(because)

    def give_up(self) -> None:
        """Give a lease by DHCP back, if there is one, and ask no more."""
        with self.acting() as now:
            for agent in [one for one in self.agents if isinstance(one, Dhcp)]:
                agent.stop(now)
                self.agents.remove(agent)

    def obtain6(self, timeout: float = 20.0, wants: Wants = _ADDRESS) -> Network6:
        """Configure by DHCPv6, after `start_ipv6`, and stay so. OSError with the reason."""
        agent = Dhcp6(self.host, wants)
        with self.acting() as now:
            agent.start(now)
            self.agents.append(agent)
        self.wait(lambda: agent.network is not None or agent.failed, timeout)
        with self.acting() as now:
            if agent.network is not None:
                return agent.network
            self.agents.remove(agent)
            agent.stop(now)
        raise OSError(agent.because or "no DHCPv6 server answered")

    # --- for sockets ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def acting(self) -> Iterator[Ns]:
        """Hold the stack still to use `host`; what that has to send is sent at the end. Gives the moment."""
        with self._lock:
            yield time.monotonic_ns()
            self._flush(time.monotonic_ns())
            due = self._deadline()
            if self._thread is not None and due is not None and threading.current_thread() is not self._thread:
                known = self._asleep_until
                if known is None or due < known:
                    os.eventfd_write(self._wake, 1)

    def wait(self, ready: Callable[[], object], timeout: float | None) -> bool:
        """Until `ready()` is true: True; or for `timeout` seconds (None: for ever): False. The stack is held in it."""
        end = None if timeout is None else time.monotonic_ns() + int(timeout * S)
        with self._turned:
            while not ready():
                if self._error is not None:
                    raise OSError(f"the stack stopped: {self._error}") from self._error
                left = None if end is None else end - time.monotonic_ns()
                if not self._running or (left is not None and left <= 0):
                    return False
                if self._threaded:
                    self._turned.wait(None if left is None else left / S)
                else:
                    self._turn(left)
            return True

    def _run(self) -> None:
        try:
            while self._running:
                self._turn(None)
        except BaseException as error:
            with self._turned:
                self._error = error  # so that nobody waits for ever for a stack that is gone
                self._turned.notify_all()
            if not isinstance(error, OSError):
                raise

    def _turn(self, patience: Ns | None) -> None:
        """Sleep until a frame, a timer or `patience` nanoseconds, and do what is due."""
        with self._lock:
            due = self._deadline()
            self._asleep_until = due
        sleep = None if due is None else max(0, due - time.monotonic_ns())
        if patience is not None:
            sleep = patience if sleep is None else min(sleep, patience)
        self._poll.poll(None if sleep is None else -(-sleep // MS))
        with self._turned:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            host, nic = self.host, self.nic
            for _ in range(_BURST):
                frame = nic.receive()
                if frame is None:
                    break
                now = time.monotonic_ns()
                host.receive(frame, now)
                self._flush(now)  # after each: an acknowledgement for several merged segments would starve the sender
            now = time.monotonic_ns()
            due = host.deadline
            if due is not None and due <= now:
                host.tick(now)
            for agent in self.agents:
                agent.turn(now)
            self._flush(now)
            self._turned.notify_all()
        for callback in self.changed:
            callback()

    def _deadline(self) -> Ns | None:
        times = [self.host.deadline, *(agent.deadline for agent in self.agents)]
        return min((t for t in times if t is not None), default=None)

    def _flush(self, now: Ns) -> None:
        for frame in self.host.transmit(now):
            self.nic.transmit(frame)


def packed(address: str) -> bytes:
    """4 or 16 octets of an address. ValueError if it is none."""
    try:
        return ip6.octets(address) if ":" in address else ip.v4_octets(address)
    except WireError:
        raise ValueError(f"not an address: {address!r}") from None


def text(address: bytes) -> str:
    """The address for people."""
    return ip.v4_text(address) if len(address) == 4 else ip6.text(address)
