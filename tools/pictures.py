"""The pictures of the docs, taken anew: a simulated storm through a real journal, store and page, in Chromium.

./.venv/bin/python tools/pictures.py docs/images
"""

from __future__ import annotations

import dataclasses
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from playwright.sync_api import sync_playwright

from boot_stories import Story, address, booted, mac, refused
from bootwire import facts
from bootwire.facts import Fact
from web_site import Running, running

MACHINES = 200
PICTURES = (  # name, path, width, height, scheme
    ("machines", "/", 1000, 560, "light"),
    ("wall", "/wall", 1000, 560, "dark"),
    ("phone", "/", 390, 700, "light"),
)
LATER = (
    ("boot", "/boots/{booted}", 1000, 820, "light"),
    ("stuck", "/boots/{stuck}", 1000, 700, "dark"),
)
FIRMWARE = (("UEFI x64", 7), ("BIOS", 0), ("UEFI arm64", 11), ("UEFI HTTP x64", 16), ("UEFI x64", 7))
SLOWER = 1.5  # than the stories of the tests are


def asked_in_vain(number: int) -> Story:
    """A firmware that cannot put two offers together."""
    machine = mac(number)
    file = f"{machine.replace(':', '-')}/x86_64/snponly.efi"
    story: Story = []
    for at, retry in ((0.0, 0), (3.0, 1), (6.0, 2)):
        story.append((at, facts.Discovered(machine, "UEFI x64", 7, "", 1, "eth0", retry=retry)))
        story.append((at + 0.1, facts.Offered(machine, "binl", file, "10.77.0.1", "eth0", "EDK2 asks port 4011")))
    return story


def broken(number: int) -> Story:
    """Somebody pulls the cable in the middle of the initrd."""
    because = "the machine closed the connection"
    failed = facts.TransferFailed(mac(number), "http", "initrd/0", address(number), 13_500_000, 2.9, because)
    return [*booted(number)[:14], (9.0, failed)]


def story(number: int, rng: random.Random) -> Story:
    """What becomes of one machine; most of them boot."""
    fate = rng.random()
    made = asked_in_vain(number) if fate > 0.97 else refused(number) if fate > 0.94 else booted(number)
    made = broken(number) if 0.92 < fate <= 0.94 else made
    client, arch = FIRMWARE[number % len(FIRMWARE)]
    first = made[0][1]
    assert isinstance(first, facts.Discovered)
    vendor = f"PXEClient:Arch:{arch:05}:UNDI:003016"
    decided = (5.0, facts.Decided(mac(number), "Debian 13 installer", "default", "everybody gets this kernel"))
    began = facts.Discovered(first.machine, client, arch, "", number, "eth0", vendor_class=vendor)
    file = {"BIOS": "bios/undionly.kpxe", "UEFI arm64": "arm64/snponly.efi"}.get(client, "x86_64/snponly.efi")
    made = [(at, fitting(fact, file)) for at, fact in made]
    late, pace = rng.uniform(0, 12), rng.uniform(0.8, 1.4) * SLOWER
    whole = sorted([(0.0, began), *made[1:], *([decided] if len(made) > 12 else [])], key=lambda step: step[0])
    return [(late + at * pace, fact) for at, fact in whole]


def fitting(fact: Fact, file: str) -> Fact:
    """The same fact with the loader of another architecture."""
    texts = {
        field.name: value.replace("x86_64/snponly.efi", file)
        for field in dataclasses.fields(fact)
        if isinstance(value := getattr(fact, field.name), str)
    }
    return dataclasses.replace(fact, **texts)


def tell(site: Running, steps: Story, until: float, began: float) -> Story:
    """What happens until then; what is left."""
    while steps and steps[0][0] <= until:
        at, fact = steps[0]
        wait = began + at - time.monotonic()
        if wait > 0:
            time.sleep(wait)
            site.underway = under_way(steps, at)
        site.record(fact)
        steps = steps[1:]
    return steps


def under_way(steps: Story, now: float) -> list[tuple[str, str, str, int]]:
    """How far the files are whose end is still to come."""
    found = []
    for at, fact in steps:
        if at > now + 5:
            break
        if isinstance(fact, facts.TransferDone) and at - fact.seconds * SLOWER < now:
            share = 1 - (at - now) / (fact.seconds * SLOWER)
            found.append((fact.machine, fact.protocol, fact.name, max(0, int(fact.octets * share))))
    return found


def main(folder: Path) -> int:
    """Take them all; a line for each."""
    rng = random.Random(4)
    steps = sorted((step for number in range(MACHINES) for step in story(number, rng)), key=lambda step: step[0])
    with tempfile.TemporaryDirectory() as state, running(Path(state)) as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        pages = []
        for name, path, width, height, scheme in PICTURES:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(site.url + path)
            pages.append((name, page))
        began = time.monotonic()
        steps = tell(site, steps, 23.0, began)
        time.sleep(0.5)
        for name, page in pages:
            page.screenshot(path=folder / f"{name}.png")
            print(folder / f"{name}.png")
        tell(site, steps, 1e9, began)
        time.sleep(27)  # what is stuck is said when its time is over
        found = site.desk.timeline.briefs()
        numbers = {
            state: next(line["boot"] for line in found if line["state"] == state) for state in ("booted", "stuck")
        }
        for name, path, width, height, scheme in LATER:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(site.url + path.format(**numbers))
            page.get_by_role("heading", name="Waterfall").wait_for()
            page.screenshot(path=folder / f"{name}.png")
            print(folder / f"{name}.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
