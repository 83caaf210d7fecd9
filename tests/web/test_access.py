"""Who may do what on the management port."""

from __future__ import annotations

import contextlib
import http.client
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from web_site import Running, running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("state"), "0.0.0.0") as made:
        yield made


def ask(site: Running, method: str, path: str, **headers: str) -> tuple[int, str, str]:
    """Status, body, Location. A header's underscores are dashes."""
    status, found, body = whole(site, method, path, None, {n.replace("_", "-"): value for n, value in headers.items()})
    return status, body, found.get("Location", "")


def whole(
    site: Running, method: str, path: str, body: str | None, headers: dict[str, str]
) -> tuple[int, http.client.HTTPMessage, str]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()


def test_reading_is_free_on_this_machine(site: Running) -> None:
    assert ask(site, "GET", "/api/machines")[:2] == (200, "[]")


@pytest.mark.parametrize("host", ["bootwire.example", "127.0.0.1.evil.example", "evil.example:80", "10.0.0.1"])
def test_a_foreign_name_that_leads_to_loopback_is_not_this_machine(site: Running, host: str) -> None:
    status, body, _ = ask(site, "GET", "/api/machines", Host=host)
    assert status == 401
    assert "web-token" in body


@pytest.mark.parametrize("host", ["localhost", "localhost:8067", "127.0.0.1:1", "[::1]:8067"])
def test_loopback_has_several_names(site: Running, host: str) -> None:
    assert ask(site, "GET", "/api/machines", Host=host)[0] == 200


def test_the_token_opens_it_from_anywhere(site: Running) -> None:
    bearer = f"Bearer {site.token}"
    assert ask(site, "GET", "/api/machines", Host="elsewhere", Authorization=bearer)[0] == 200
    assert ask(site, "GET", "/api/machines", Host="elsewhere", Authorization=bearer + "x")[0] == 401
    assert ask(site, "GET", "/api/machines", Host="elsewhere", Authorization="Bearer \xe9")[0] == 401
    assert ask(site, "GET", "/api/machines", Host="elsewhere", Cookie=f"bootwire={site.token}")[0] == 200


def test_a_change_needs_the_token_from_everywhere(site: Running) -> None:
    assert ask(site, "POST", "/api/machines")[0] == 401
    assert ask(site, "POST", "/api/machines", Cookie=f"bootwire={site.token}")[0] == 401  # that is for reading
    assert ask(site, "POST", "/api/machines", Authorization=f"Bearer {site.token}")[0] == 405  # nothing to change there


@pytest.mark.parametrize("headers", [
    {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Origin": "https://evil.example"},
])  # fmt: skip
def test_a_page_of_another_site_gets_nothing_even_with_the_cookie(site: Running, headers: dict[str, str]) -> None:
    assert ask(site, "GET", "/api/machines", Cookie=f"bootwire={site.token}", **headers)[0] == 401
    assert ask(site, "POST", "/api/machines", Cookie=f"bootwire={site.token}", **headers)[0] == 401


def test_a_link_from_another_site_leads_here(site: Running) -> None:
    assert ask(site, "GET", "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200


def test_a_browser_without_the_token_is_led_to_where_it_is_asked_for(site: Running) -> None:
    status, _, location = ask(site, "GET", "/", Host="elsewhere", Accept="text/html,*/*")
    assert (status, location) == (303, "/sign-in")
    assert ask(site, "GET", "/sign-in", Host="elsewhere")[0] == 200


def sign_in(site: Running, token: str, **headers: str) -> tuple[int, http.client.HTTPMessage]:
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Host": "elsewhere"}
    return whole(site, "POST", "/sign-in", f"token={token}", {**kind, **headers})[:2]


def test_signing_in_gives_a_cookie_that_no_script_and_no_other_site_can_use(site: Running) -> None:
    status, headers = sign_in(site, site.token)
    assert (status, headers["Location"]) == (303, "/")
    assert "HttpOnly" in headers["Set-Cookie"]
    assert "SameSite=Strict" in headers["Set-Cookie"]


def test_a_wrong_token_is_told_and_gives_nothing(site: Running) -> None:
    _, headers = sign_in(site, "wrong")
    assert (headers["Location"], headers.get("Set-Cookie")) == ("/sign-in?wrong=1", None)
    assert "That is not the token." in ask(site, "GET", "/sign-in?wrong=1")[1]


def test_another_site_cannot_sign_this_browser_in(site: Running) -> None:
    assert sign_in(site, site.token, Origin="https://evil.example")[0] == 403


def test_the_token_is_the_owners_alone_and_stays(site: Running, tmp_path: Path) -> None:
    with running(tmp_path) as one:
        token = one.token
        assert stat.S_IMODE((tmp_path / "web-token").stat().st_mode) == 0o600
    with running(tmp_path) as other:
        assert (other.token, len(token) >= 43) == (token, True)


@pytest.mark.parametrize("path", ["/", "/api/machines", "/static/app.js", "/nothing", "/sign-in", "/healthz"])
def test_every_answer_forbids_what_no_page_of_ours_does(site: Running, path: str) -> None:
    _, headers, _ = whole(site, "GET", path, None, {})
    policy = headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Server"] == "bootwire"
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/static/../site.py", "/static/%2e%2e%2fsite.py", "/static/site.py", "/static/"])
def test_only_the_pages_own_files_are_served(site: Running, path: str) -> None:
    assert ask(site, "GET", path)[0] == 404


@pytest.mark.parametrize("path", ["/api/boots/1", "/api/boots/999999999999999999", "/api/boots/1/facts.jsonl",
                                  "/api/boots/1/capture.pcap", "/api/diff/1/2", "/api/boots/x"])  # fmt: skip
def test_what_is_not_there_is_not_found(site: Running, path: str) -> None:
    assert ask(site, "GET", path)[0] == 404


@pytest.mark.parametrize("query", ["before=x", "limit=-1", "before=9999999999999999999", "limit=%00"])
def test_a_number_that_is_none_is_refused(site: Running, query: str) -> None:
    assert ask(site, "GET", f"/api/boots?{query}")[0] == 400
