"""Boot states: what may be installed, once, and what comes after it. Pure; moments are Unix seconds.

    idle ──arm──▶ armed ──its boot begins──▶ installing ──it says so, or hands over──▶ installed
                    │                          │   ▲                                      │
                    └────── expires ───────────┤   └── comes again: one more try          └──arm──▶ armed
                                               └── no try left, or expired ──▶ failed

Nothing that installs is ever given to a machine that is not armed for it. Every state says why it is what it is.

Tries are counted twice, for two kinds of who asks: the machine itself, as DHCP or the link shows it, and whoever names
it over HTTP. What the others use up is not the machine's, and so nobody who reaches HTTP alone can use up its tries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from bootwire.policy.target import Silence, Target

Phase = Literal["idle", "armed", "installing", "installed", "failed"]

TRIES = 3  # boots that an installation may take unless the operator says otherwise
WITHIN = 24 * 3600.0  # seconds from arming to its end, likewise
SAME_BOOT = 90.0
"""Seconds within which a second boot script is of the same try: our scripts try 5 times, 3 s apart, and then end."""


@dataclass(frozen=True, slots=True)
class State:
    """One machine's.

    profile  what it is armed with; "" for whatever it is decided to boot
    tries    boots that are left to the machine itself
    until    when arming ends
    since    of this phase, or of the last try
    serial   counts armings: what a machine reports done must be of the present one
    unproved boots that are left to whoever is not known to be the machine; never more than `tries`
    """

    machine: str
    phase: Phase = "idle"
    profile: str = ""
    tries: int = 0
    until: float = 0.0
    since: float = 0.0
    serial: int = 0
    because: str = "it was never armed"
    unproved: int = 0

    @property
    def may_install(self) -> bool:
        return self.phase in ("armed", "installing")


def arm(state: State, profile: str, now: float, tries: int = TRIES, within: float = WITHIN) -> State:
    """Let the machine install once, in at most `tries` boots (1 to 100) and `within` seconds. Raises ValueError."""
    if not 1 <= tries <= 100:
        raise ValueError(f"{tries} tries: between 1 and 100")
    if not 0 < within <= 366 * 86400:
        raise ValueError("the time to install in must be between a second and a year")
    because = f"armed for {_times(tries)}"
    return State(state.machine, "armed", profile, tries, now + within, now, state.serial + 1, because, tries)


def disarm(state: State, now: float) -> State:
    """Take it back; what is installed stays installed."""
    if not state.may_install:
        return state
    return replace(state, phase="idle", tries=0, unproved=0, since=now, because="it was disarmed")


def looked_at(state: State, now: float) -> State:
    """The state now: arming expires."""
    if state.may_install and now >= state.until:
        how = "before it had booted" if state.phase == "armed" else "before it had finished"
        because = f"its time was over {how}: arm it again"
        return replace(state, phase="failed", tries=0, unproved=0, since=state.until, because=because)
    return state


def began(state: State, now: float) -> State:
    """The machine's own boot with the installing profile begins: one try is used, unless it is still the last boot."""
    state = looked_at(state, now)
    if not state.may_install or _same_boot(state, now):
        return state
    if state.tries == 0:
        because = "it came back without having finished, and no try is left: arm it again"
        return replace(state, phase="failed", since=now, because=because)
    left = state.tries - 1
    because = f"it installs, {'the last try' if left == 0 else f'{_times(left)} left'}"
    others = max(0, state.unproved - 1)
    return replace(state, phase="installing", tries=left, unproved=others, since=now, because=because)


def began_unproved(state: State, now: float, why: str) -> State | str:
    """Somebody who is not known to be the machine begins its boot; or why there is none for such."""
    state = looked_at(state, now)
    if not state.may_install or _same_boot(state, now):
        return state
    if state.unproved == 0:
        return f"{why}, and no try is left for who is not known to be it: arm it again"
    left = state.unproved - 1
    because = f"it installs, not known to be it ({why}): {_times(left)} left for such, {_times(state.tries)} for itself"
    return replace(state, phase="installing", unproved=left, since=now, because=because)


def _same_boot(state: State, now: float) -> bool:
    return state.phase == "installing" and 0 <= now - state.since < SAME_BOOT  # clocks are set back, too


def done(state: State, serial: int, now: float, how: str) -> State | str:
    """The installation has finished; or why this report counts for nothing. how: "it phoned home from 192.0.2.7"."""
    if serial != state.serial:
        return "it reports an installation that is not the present one"
    if state.phase == "installed":
        return f"it was reported already: {state.because}"
    if state.phase != "installing":
        return f"it is not installing: {state.because}"
    return replace(state, phase="installed", tries=0, unproved=0, since=now, because=how)


def allowed(target: Target | Silence, state: State) -> Target | Silence:
    """What the machine gets of what was decided: nothing that installs unless it may."""
    if isinstance(target, Silence) or not target.variables.get("install"):
        return target
    name = f"profile {target.profile}" if target.profile else "this"
    if state.may_install and state.profile in ("", target.profile):
        return replace(target, because=f"{target.because}; {state.because}")
    if state.may_install:
        because = f"it is armed with profile {state.profile}, not with {target.profile or 'this'}: bootwire arm"
        because += f" {state.machine} --profile {target.profile}" if target.profile else f" {state.machine}"
    elif state.phase == "installed":
        because = f"{name} installs, and it is installed: {state.because}"
    else:
        because = f"{name} installs, and it may not: {state.because}; bootwire arm {state.machine}"
    return Target(because, target.profile, local=True)


def _times(number: int) -> str:
    return "one try" if number == 1 else f"{number or 'no'} tries"
