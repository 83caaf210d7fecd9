"""The pages in a real browser, Debian's Chromium: live in a storm, legible to everybody, safe from what peers say."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from boot_stories import booted, hostile, mac, refused
from bootwire.facts import Fact
from web_site import Running, running

pytestmark = pytest.mark.interop

CHROMIUM = "/usr/bin/chromium"
VIEWS = ("/", "/wall", "/history", "/log", "/boots/1", "/boots/2", f"/machines/{mac(1)}", "/diff/1/2", "/sign-in")
CONTRAST = 4.5
"""Text against its ground, at least (WCAG 2.2, success criterion 1.4.3)."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as made:
        yield made


def tell(site: Running, *stories: list[tuple[float, Fact]]) -> None:
    for story in stories:
        site.tell([fact for _, fact in story])


def opened(browser: Browser, site: Running, path: str, **options: Any) -> Page:
    """A page that has shown something; whatever goes wrong in it fails the test (`troubles`)."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.troubles = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.troubles.append(str(error)))  # type: ignore[attr-defined]
    page.on("console", lambda said: said.type == "error" and page.troubles.append(said.text))  # type: ignore[attr-defined]
    page.goto(site.url + path)
    page.wait_for_selector("main :not(noscript)")
    if path != "/sign-in":
        page.wait_for_selector(".link.live")
    return page


def test_a_machine_that_asks_appears_and_its_verdict_with_it(browser: Browser, site: Running) -> None:
    page = opened(browser, site, "/")
    page.get_by_text("No machine has asked yet").wait_for()
    tell(site, booted(1))
    page.locator("tr", has_text=mac(1)).locator(".state.booted").wait_for(timeout=1_500)
    page.get_by_role("link", name=mac(1)).click()
    page.get_by_role("heading", name="Waterfall").wait_for()
    assert page.locator("svg .row").count() > 15
    assert page.troubles == []  # type: ignore[attr-defined]


def test_what_is_found_is_what_was_searched_for(browser: Browser, site: Running) -> None:
    tell(site, booted(1), booted(2), booted(3))
    page = opened(browser, site, "/")
    page.locator("tbody tr").nth(2).wait_for()
    page.get_by_role("searchbox").fill(mac(2)[-5:])
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="stuck").click()
    page.get_by_text("No machine fits").wait_for()
    site.desk.timeline.flush()
    past = opened(browser, site, "/history")
    past.get_by_role("searchbox").fill(mac(3))
    past.get_by_role("searchbox").press("Enter")
    expect(past.locator("tbody tr")).to_have_count(1)
    assert past.url.endswith("?q=52%3A54%3A00%3A77%3A00%3A03")


def test_what_a_peer_says_is_shown_and_never_done(browser: Browser, site: Running) -> None:
    tell(site, hostile(1), hostile(2))
    for path in ("/", "/wall", "/log", "/boots/1", "/diff/1/2", f"/machines/{mac(1)}"):
        page = opened(browser, site, path)
        page.wait_for_timeout(200)
        assert page.title() != "owned", path
        assert page.locator("main img, main script, main [onerror]").count() == 0, path
        assert page.troubles == [], path  # type: ignore[attr-defined]
        page.context.close()
    page = opened(browser, site, "/boots/1")
    assert "<img src=x onerror=alert(1)>" in page.locator("main").inner_text()


def test_it_works_on_a_phone_without_scrolling_sideways(browser: Browser, site: Running) -> None:
    tell(site, booted(1), refused(2))
    for path in ("/", "/wall", "/history", "/log", "/boots/1", "/diff/1/2"):
        page = opened(browser, site, path, is_mobile=True, has_touch=True)
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(200)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{path} is {wide} wide"
        page.context.close()


def test_signing_in_from_elsewhere(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path) as site:
        rules = f"MAP lab.example 127.0.0.1:{site.port}"
        with_rules = browser.browser_type.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", f"--host-resolver-rules={rules}"]
        )
        page = with_rules.new_page()
        page.goto("http://lab.example/")
        assert page.url.endswith("/sign-in")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("That is not the token.").wait_for()
        page.get_by_label("Token").fill(site.token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector(".link.live")
        with_rules.close()


def test_a_storm_of_200_machines_stays_live_and_bounded(browser: Browser, site: Running) -> None:
    """Facts of 200 boots over some seconds; meanwhile a machine that appears is on the page within a second."""
    page, wall = opened(browser, site, "/"), opened(browser, site, "/wall")
    heap = page.evaluate("performance.memory.usedJSHeapSize")
    stories = [booted(number) for number in range(200)]
    late = 0.0

    def storm() -> None:
        rng = random.Random(3)
        steps = [(at + rng.uniform(0, 3), fact) for story in stories for at, fact in story]
        began = time.monotonic()
        for at, fact in sorted(steps, key=lambda step: step[0]):
            wait = began + at / 3 - time.monotonic()
            if wait > 0:
                threading.Event().wait(wait)
            site.record(fact)

    thread = threading.Thread(target=storm, daemon=True)
    thread.start()
    for number in range(300, 312):
        told = time.monotonic()
        tell(site, refused(number))
        page.locator(".machines", has_text=mac(number)).wait_for(timeout=5_000)
        late = max(late, time.monotonic() - told)
    thread.join(60)
    page.wait_for_function("document.querySelectorAll('tbody tr .state.booted').length === 200", timeout=5_000)
    wall.wait_for_function("document.querySelectorAll('.wall a.booted').length === 200", timeout=5_000)
    grown = page.evaluate("performance.memory.usedJSHeapSize") - heap
    assert late < 1.0, f"a machine was on the page {late:.2f} s after its packet"
    assert grown < 50e6, f"the page's memory grew by {grown / 1e6:.0f} MB"
    assert page.locator("tbody tr").count() == 212
    assert page.troubles == wall.troubles == []  # type: ignore[attr-defined]


def test_a_server_that_comes_back_is_found_again(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path) as site:
        tell(site, booted(1))
        page = opened(browser, site, "/")
        page.locator("tr", has_text=mac(1)).wait_for()
        port = site.port
    page.wait_for_selector(".link.lost")
    with running(tmp_path, port=port) as again:
        tell(again, booted(7))
        page.wait_for_selector(".link.live")
        page.locator("tr", has_text=mac(7)).wait_for()


# --- for everybody ----------------------------------------------------------------------------------------------

_COLOURS = Path(__file__).with_name("contrast.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", VIEWS)
def test_everybody_can_read_and_use_it(browser: Browser, tmp_path: Path, path: str, scheme: str) -> None:
    """Names and roles in the accessibility tree, landmarks, headings, labels, contrast, focus by keyboard."""
    with running(tmp_path) as site:
        tell(site, booted(1), refused(2))
        page = opened(browser, site, path, color_scheme=scheme)
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.lang") == "en"
        assert page.title()
        nodes = tree(page)
        roles = [node["role"]["value"] for node in nodes]
        assert roles.count("main") == 1
        if path != "/sign-in":
            assert "banner" in roles
            assert roles.count("navigation") == 1
        assert [level for level in levels(nodes) if level == 1] == [1]
        steps = levels(nodes)
        assert all(after - before <= 1 for before, after in itertools.pairwise(steps)), steps
        for node in nodes:
            if node["role"]["value"] in ("button", "link", "textbox", "searchbox", "img", "columnheader", "progressbar",
                                         "listitem", "table"):  # fmt: skip
                named = node.get("name", {}).get("value", "").strip() or node["role"]["value"] in ("table", "listitem")
                empty_corner = path.startswith("/diff") and node["role"]["value"] == "columnheader"
                assert named or empty_corner, node
        pale = [found for found in page.evaluate(_COLOURS) if found["ratio"] < CONTRAST]
        assert pale == []
        page.keyboard.press("Tab")
        focused = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(focused) != "none", "the focus cannot be seen"
        assert page.troubles == []  # type: ignore[attr-defined]


def tree(page: Page) -> list[dict[str, Any]]:
    """Chromium's accessibility tree, without what it leaves out."""
    session = page.context.new_cdp_session(page)
    nodes: list[dict[str, Any]] = session.send("Accessibility.getFullAXTree")["nodes"]
    return [node for node in nodes if not node["ignored"]]


def levels(nodes: list[dict[str, Any]]) -> list[int]:
    """Of all headings, in order."""
    return [
        next(one["value"]["value"] for one in node["properties"] if one["name"] == "level")
        for node in nodes
        if node["role"]["value"] == "heading"
    ]
