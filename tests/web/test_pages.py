"""The pages in a real browser, Debian's Chromium: live in a storm, legible to everybody, safe from what peers say."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

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


_SEEN = """() => {
  window.seen = {};
  new MutationObserver((changes) => {
    for (const row of changes.flatMap((change) => [...change.addedNodes])) {
      const name = row.querySelector("a.machine").textContent;
      if (!(name in seen)) requestAnimationFrame(() => setTimeout(() => { seen[name] ??= Date.now() / 1000; }));
    }
  }).observe(document.querySelector("tbody"), { childList: true });
}"""
"""Notes in the page itself when each machine was painted first: asking from outside costs more than the page does."""


def test_a_storm_of_200_machines_stays_live_and_bounded(browser: Browser, site: Running) -> None:
    """Facts of 200 boots over some seconds; meanwhile a machine that appears is on the page within a second."""
    page, wall = opened(browser, site, "/"), opened(browser, site, "/wall")
    heap = page.evaluate("performance.memory.usedJSHeapSize")
    stories = [booted(number) for number in range(200)]
    late = list[float]()
    page.evaluate(_SEEN)

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
        told = time.time()
        tell(site, refused(number))
        page.wait_for_function("name => seen[name]", arg=mac(number), timeout=10_000)
        late.append(page.evaluate("name => seen[name]", mac(number)) - told)
    thread.join(60)
    page.wait_for_function("document.querySelectorAll('tbody tr .state.booted').length === 200", timeout=5_000)
    wall.wait_for_function("document.querySelectorAll('.wall a.booted').length === 200", timeout=5_000)
    grown = page.evaluate("performance.memory.usedJSHeapSize") - heap
    assert max(late) < 1.0, f"machines were on the page {sorted(late)} s after their packets"
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


# --- who may install ------------------------------------------------------------------------------------------------


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, profiles=("debian", "rescue")) as made:
        yield made


def confirmed(page: Page, button: str, token: str = "") -> None:
    """Whatever the dialog asks for, given by keyboard alone."""
    page.get_by_role("button", name=button).focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    if token:
        page.get_by_label("Token").fill(token)
    else:  # it begins at Cancel
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")


def test_a_machine_is_armed_and_disarmed_by_hand(browser: Browser, fleet: Running) -> None:
    tell(fleet, booted(1))
    page, machines, wall = (opened(browser, fleet, path) for path in (f"/machines/{mac(1)}", "/", "/wall"))
    panel = page.get_by_role("region", name="Installation")
    panel.get_by_text("it goes on with its own disk").wait_for()
    page.get_by_role("button", name="Arm…").click()
    dialog = page.get_by_role("dialog", name=f"Arm {mac(1)}?")
    dialog.get_by_text("An installation wipes its disk.").wait_for()
    dialog.get_by_label("Install", exact=True).select_option("rescue")
    dialog.get_by_label("In how many boots at most").fill("2")
    dialog.get_by_label("Within", exact=True).fill("90")
    dialog.get_by_label("Unit of time").select_option("minutes")
    dialog.get_by_label("Token").fill(fleet.token)
    assert fleet.states.state(mac(1)).phase == "idle", "nothing is done before it is confirmed"
    dialog.get_by_role("button", name="Arm: its disk may be wiped").click()
    panel.get_by_text("Armed for 2 tries.").wait_for()
    state = fleet.states.state(mac(1))
    assert (state.phase, state.profile, state.tries) == ("armed", "rescue", 2)
    assert abs(state.until - state.since - 5400) < 1
    machines.locator("tr", has_text=mac(1)).get_by_text("armed rescue").wait_for()
    wall.get_by_text("1 may install").wait_for()
    expect(wall.get_by_role("link", name=f"{mac(1)}: booted, alive; armed rescue")).to_have_count(1)
    expect(page.get_by_role("button", name="Disarm…")).to_be_focused()
    confirmed(page, "Disarm…")
    panel.get_by_text("It was disarmed.").wait_for()
    assert fleet.states.state(mac(1)).phase == "idle"
    expect(machines.get_by_text("armed rescue")).to_be_hidden()
    assert page.troubles == machines.troubles == wall.troubles == []  # type: ignore[attr-defined]


def test_what_is_armed_elsewhere_shows_up_and_what_has_not_asked_yet_is_named(browser: Browser, fleet: Running) -> None:
    page, machine = opened(browser, fleet, "/"), opened(browser, fleet, f"/machines/{mac(1)}")
    fleet.states.arm(mac(1), "debian", 3, 3600)
    page.get_by_text("May install, not seen yet").get_by_role("link", name=mac(1)).wait_for()
    machine.get_by_text("Its next network boot installs debian").wait_for()
    tell(fleet, booted(1))
    page.locator("tr", has_text=mac(1)).get_by_text("armed debian").wait_for()
    expect(page.get_by_text("May install, not seen yet")).to_be_hidden()
    page.get_by_role("searchbox").fill(mac(9).upper())
    page.get_by_role("link", name=mac(9)).click()
    page.get_by_role("button", name="Arm…").wait_for()


def test_without_the_token_nothing_is_armed_and_escape_leaves_all_as_it_is(browser: Browser, fleet: Running) -> None:
    page = opened(browser, fleet, f"/machines/{mac(1)}")
    page.context.add_cookies([{"name": "bootwire", "value": fleet.token, "url": fleet.url}])
    confirmed(page, "Arm…", "wrong")
    page.get_by_role("alert").get_by_text("That is not the token. Nothing was changed.").wait_for()
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Arm…")).to_be_focused()
    assert fleet.states.state(mac(1)).phase == "idle"
    assert page.evaluate("fetch('/api/states/52-54-00-77-00-01/arm', {method: 'POST'}).then(r => r.status)") == 401
    assert fleet.states.all() == []


def test_what_the_server_refuses_is_told_in_its_words(browser: Browser, fleet: Running) -> None:
    page = opened(browser, fleet, f"/machines/{mac(1)}")
    page.get_by_role("button", name="Arm…").click()
    page.evaluate("document.querySelector('#arm-profile').options[2].value = 'rescue-2'")  # the file has changed since
    page.get_by_label("Install", exact=True).select_option("rescue-2")
    page.get_by_label("Token").fill(fleet.token)
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("No profile is called 'rescue-2'. Nothing was changed.").wait_for()
    fleet.close()
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("The server does not answer.").wait_for()


def test_where_everybody_gets_the_same_there_is_nothing_to_arm(browser: Browser, site: Running) -> None:
    tell(site, booted(1))
    page = opened(browser, site, f"/machines/{mac(1)}")
    page.locator("table.past").wait_for()
    with page.expect_response("**/api/arming"):
        page.reload()
    expect(page.get_by_role("region", name="Installation")).to_have_count(0)
    assert page.troubles == []  # type: ignore[attr-defined]


# --- for everybody ----------------------------------------------------------------------------------------------

_COLOURS = Path(__file__).with_name("contrast.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", VIEWS)
def test_everybody_can_read_and_use_it(browser: Browser, tmp_path: Path, path: str, scheme: str) -> None:
    """Names and roles in the accessibility tree, landmarks, headings, labels, contrast, focus by keyboard."""
    with running(tmp_path, profiles=("debian",)) as site:
        tell(site, booted(1), refused(2))
        site.states.arm(mac(1), "debian", 3, 3600)
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_and_use_the_question_before_it_is_armed(
    browser: Browser, fleet: Running, scheme: Literal["light", "dark"]
) -> None:
    page = opened(browser, fleet, f"/machines/{mac(1)}", color_scheme=scheme)
    page.get_by_role("button", name="Arm…").click()
    nodes = tree(page)
    (dialog,) = (node for node in nodes if node["role"]["value"] == "dialog")
    assert dialog["name"]["value"] == f"Arm {mac(1)}?"
    assert dialog["description"]["value"].startswith("An installation wipes its disk.")
    asked = {node["name"]["value"] for node in nodes if node["role"]["value"] in ("combobox", "spinbutton", "textbox")}
    assert asked == {"Install", "In how many boots at most", "Within", "Unit of time", "Token"}
    assert [found for found in page.evaluate(_COLOURS) if found["ratio"] < CONTRAST] == []
    reached = [page.evaluate("document.activeElement.id || document.activeElement.textContent")]
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert reached[:3] == ["arm-profile", "arm-tries", "arm-within"]
    assert reached[4:] == ["arm-token", "Cancel", "Arm: its disk may be wiped"]
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.querySelector('dialog').getBoundingClientRect().right") <= 390


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
