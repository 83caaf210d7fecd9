"""`bootwire prefetch`: images are in the cache before any machine asks for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bootwire.facts import Fact, ImageFetched
from bootwire.policy.target import Image
from bootwire.serve.cache import Cache, NotFetched, Progress
from bootwire.serve.fleet import Loaded, load, problems_text
from bootwire.serve.images import Settings, open_cache
from bootwire.serve.mode import StartError
from bootwire.serve.sources import SourceError, is_url, pinned
from bootwire.wire.text import printable


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image. state: "fetched", "kept" (it was there), "failed"."""

    location: str
    state: str
    octets: int = 0
    seconds: float = 0.0
    sha256: str = ""
    because: str = ""

    @property
    def text(self) -> str:
        if self.state == "failed":
            return f"failed   {printable(self.location)}: {self.because}"
        took = f" in {self.seconds:.1f} s" if self.state == "fetched" else ""
        return f"{self.state:<8} {printable(self.location)}: {self.octets / 1e6:.1f} MB{took}, sha256 {self.sha256}"


def run(
    say: Callable[[str], None], what: Sequence[str], settings: Settings, as_json: bool, progress: Progress | None
) -> int:
    """Fetch everything that `what` (fleet files and URLs) names, one after another; 1 if anything is missing then.

    Raises StartError (status 2): a fleet file is broken, a URL is none, or there is nothing to fetch.
    """
    wanted = images(what)
    if not wanted:
        raise StartError("there is nothing to fetch: no image of these lives at a URL", 2)
    outcomes = asyncio.run(_all(wanted, settings, progress, lambda one: say(_json(one) if as_json else one.text)))
    return 1 if any(one.state == "failed" for one in outcomes) else 0


def images(what: Sequence[str]) -> list[Image]:
    """The images at URLs that fleet files and URLs name, each once. A URL may end in "#sha256=HEX"."""
    found: list[Image] = []
    for given in what:
        if is_url(given):
            try:
                found.append(Image(*pinned(given)))
            except SourceError as error:
                raise StartError(str(error), 2) from None
            continue
        if "://" in given:
            raise StartError(f"{given}: images come by http or https", 2)
        loaded = load(given, look=False)
        if not isinstance(loaded, Loaded):
            raise StartError(problems_text(loaded.problems), 2)
        for target in loaded.targets.values():
            kernel = [target.kernel] if target.kernel is not None else []
            found += [one for one in (*kernel, *target.initrds, *target.files.values()) if is_url(one.location)]
    return list(dict.fromkeys(found))


async def _all(
    wanted: Sequence[Image], settings: Settings, progress: Progress | None, tell: Callable[[Outcome], None]
) -> list[Outcome]:
    facts: list[Fact] = []
    cache, upstreams = open_cache(settings, facts.append)
    outcomes = []
    try:
        for image in wanted:
            outcomes.append(await _one(cache, image, facts, progress))
            tell(outcomes[-1])
        for image, outcome in zip(wanted, outcomes, strict=True):
            if outcome.state != "failed" and cache.kept(image) is None:
                because = "thrown away again for those after it: --cache-size is too small for all of them"
                outcomes.append(Outcome(image.location, "failed", because=because))
                tell(outcomes[-1])
    finally:
        await cache.close()
        await upstreams.close()
    return outcomes


async def _one(cache: Cache, image: Image, facts: list[Fact], progress: Progress | None) -> Outcome:
    facts.clear()
    try:
        entry = await cache.fetch(image, progress=progress)
    except NotFetched as error:
        return Outcome(image.location, "failed", because=str(error))
    fetched = next((fact for fact in facts if isinstance(fact, ImageFetched)), None)
    state, seconds = ("kept", 0.0) if fetched is None else ("fetched", fetched.seconds)
    return Outcome(image.location, state, entry.size, seconds, entry.sha256)


def _json(outcome: Outcome) -> str:
    return json.dumps({"v": 1, **{name: getattr(outcome, name) for name in Outcome.__slots__}})
