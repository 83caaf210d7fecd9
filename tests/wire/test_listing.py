"""Listings as servers write them, and pages that are none."""

from __future__ import annotations

import calendar
import time

import pytest

from bootwire.wire.listing import Entry, parse_listing
from bootwire.wire.reader import WireError

URL = "http://192.0.2.1/pub/x/"
MOMENT = calendar.timegm((2026, 11, 21, 3, 10, 0))

NGINX = b"""<html><head><title>Index of /pub/x/</title></head><body><h1>x</h1><hr><pre><a href="../">../</a>
<a href="boot/">boot/</a>                                              21-Nov-2026 03:10                   -
<a href="a%20b%26c.txt">a b&amp;c.txt</a>                                         21-Nov-2026 03:10              123456
</pre><hr></body></html>"""
APACHE = b"""<pre><img src="/icons/blank.gif"> <a href="?C=N;O=D">Name</a> <a href="?C=M;O=A">Last modified</a><hr>
<img src="/icons/back.gif" alt="[PARENTDIR]"> <a href="/pub/">Parent Directory</a>                     -
<img src="/icons/folder.gif" alt="[DIR]"> <a href="boot/">boot/</a>                   2026-11-21 03:10    -
<img src="/icons/text.gif" alt="[TXT]"> <a href="a%20b&amp;c.txt">a b&amp;c.txt</a>   2026-11-21 03:10  121K
<hr></pre>"""
APACHE_TABLE = b"""<table><tr><th><a href="?C=N;O=D">Name</a></th></tr>
<tr><td valign="top"><img src="x"></td><td><a href="boot/">boot/</a></td><td align="right">2026-11-21 03:10  </td>
<td align="right">  - </td></tr><tr><td><a href="a%20b&amp;c.txt">a b</a></td><td align="right">2026-11-21 03:10  </td>
<td align="right">121K</td></tr></table>"""
PYTHON = b"""<ul>\n<li><a href="boot/">boot/</a></li>\n<li><a href="a%20b%26c.txt">a b&amp;c.txt</a></li>\n</ul>"""
CADDY = b"""<a href="/">Home</a><a href="..">Up</a><tr class="file"><td><a href="./boot/"><svg/>
<span class="name">boot</span></a></td></tr><tr><td><a href="./a%20b&amp;c.txt"><span class="name">a b</span></a></td>
<td class="size" data-size="123456"><div class="sizebar"></div></td></tr>"""


@pytest.mark.parametrize(
    ("page", "size", "moment"),
    [(NGINX, 123456, MOMENT), (APACHE, None, MOMENT), (APACHE_TABLE, None, MOMENT), (PYTHON, None, None),
     (CADDY, None, None)],
    ids=["nginx", "apache", "apache table", "python", "caddy"],
)  # fmt: skip
def test_listings(page, size, moment):
    assert parse_listing(page, URL) == [
        Entry("boot", True, None, moment),
        Entry("a b&c.txt", False, size, moment),
    ]


@pytest.mark.parametrize(
    "href",
    ["../", "..", ".", "./", "/", "/pub/", "/pub/x/", "?C=N", "#a", "a?b", "http://198.51.100.1/pub/x/a", "b/c",
     "a%2Fb", "%2e%2e", "a%00b", "mailto:x@y", "javascript:a", "//h/pub/x/a", "%2e%2e/",
     "http://192.0.2.1:81/pub/x/a", "a b"],
)  # fmt: skip
def test_links_to_elsewhere_are_no_entries(href):
    assert parse_listing(f'<a href="{href}">x</a>'.encode(), URL) == []


@pytest.mark.parametrize("href", ["a", "./a", "/pub/x/a", "http://192.0.2.1/pub/x/a", "../x/a", "%61"])
def test_every_way_to_write_a_link(href):
    for page in (f'<a href="{href}">x</a>', f"<A title=y HREF='{href}'>", f"<a href={href} class=b>"):
        assert parse_listing(page.encode(), URL) == [Entry("a", False)]


def test_a_name_is_listed_once():
    assert parse_listing(b'<a href="a"><img></a> <a href="a">a</a><a href="a/">', URL) == [Entry("a", False)]


def test_names_need_not_be_utf8():
    assert parse_listing(b'<a href="%ff">', URL) == [Entry("\udcff", False)]


def test_too_many_entries():
    with pytest.raises(WireError):
        parse_listing(b"".join(b'<a href="%d">' % n for n in range(100_002)), URL)


@pytest.mark.parametrize(
    "piece", [b"<a ", b'<a href="', b"<a href=x", b"<a href = ", b"<", b"<a x=y ", b"01-Jan-2026 "]
)
def test_hostile_pages_take_linear_time(piece):
    began = time.process_time()
    parse_listing(piece * (1_000_000 // len(piece)), URL)
    assert time.process_time() - began < 20
