"""Which proxy a URL goes through."""

from __future__ import annotations

import pytest

from bootwire.preboot.proxies import Proxies
from bootwire.wire.url import FETCHED, parse_url


def through(proxies: Proxies, url: str) -> str:
    return proxies.for_url(parse_url(url, FETCHED))


def test_each_scheme_has_its_own():
    proxies = Proxies.from_environment({"http_proxy": "http://a:1", "HTTPS_PROXY": "b:2"})
    assert through(proxies, "http://h/") == "http://a:1"
    assert through(proxies, "https://h/") == "http://b:2"
    assert through(proxies, "ftp://h/") == through(proxies, "tftp://h/") == ""


def test_all_proxy_stands_in():
    proxies = Proxies.from_environment({"all_proxy": "a:1", "https_proxy": "b:2"})
    assert (through(proxies, "http://h/"), through(proxies, "https://h/")) == ("http://a:1", "http://b:2")


def test_http_proxy_in_capitals_may_come_from_a_request():
    assert Proxies.from_environment({"HTTP_PROXY": "http://evil:1"}) == Proxies()


@pytest.mark.parametrize(
    ("direct", "url", "is_direct"),
    [
        ("boot.example", "http://boot.example/", True),
        ("boot.example", "http://a.boot.example/", True),
        ("boot.example", "http://aboot.example/", False),
        (".boot.example", "http://boot.example/", True),
        ("*.boot.example", "http://a.boot.example/", True),
        ("x, BOOT.example ,", "http://Boot.Example/", True),
        ("boot.example:8080", "http://boot.example:8080/", True),
        ("boot.example:8080", "http://boot.example/", False),
        ("*", "http://anything/", True),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.1.2.3", "http://10.1.2.3/", True),
        ("10.1.2.3:81", "http://10.1.2.3/", False),
        ("2001:db8::/32", "http://[2001:db8::1]/", True),
        ("[2001:db8::1]:80", "http://[2001:db8::1]/", True),
        ("2001:db8::1", "http://10.0.0.1/", False),
        ("not/a/net", "http://10.0.0.1/", False),
        ("", "http://h/", False),
    ],
)
def test_what_goes_directly(direct, url, is_direct):
    proxies = Proxies.from_environment({"all_proxy": "p:1", "no_proxy": direct})
    assert (through(proxies, url) == "") is is_direct
