"""Go's templates as command lines use them: what they give, and what is refused with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.policy.go_template import TemplateError, expand, literal, quote


def url(location: str) -> str:
    return f"<{location}>"


@pytest.mark.parametrize(
    ("template", "gives"),
    [
        ("console=ttyS0 quiet", "console=ttyS0 quiet"),
        ('a={{ URL "http://h/x" }} b', "a=<http://h/x> b"),
        ('a={{URL "x"}}', "a=<x>"),
        ("a={{ URL `raw\\n` }}", "a=<raw\\n>"),
        ('{{ "x" | URL }}', "<x>"),
        ('{{ "x" | printf "%s/%s" "h" | URL }}', "<h/x>"),
        ('{{ URL (printf "http://h/%d" 7) }}', "<http://h/7>"),
        ('a  {{- " b " -}}  c', "a b c"),
        ("a {{/* nothing */}}b", "a b"),
        ("a {{- /* nothing */ -}} b", "ab"),
        ('{{ printf "%q %v %%" "v\\n" 3 }}', '"v\\n" 3 %'),
        ('{{ len "äb" }}', "3"),
        ('{{ print "a" 1 2 "b" }}', "a1 2b"),
        ('{{ html "<&>" }}{{ urlquery "a b/c" }}', "&lt;&amp;&gt;a+b%2Fc"),
        ('{{ slice "abcdef" 1 3 }}', "bc"),
        ('{{ "\\u00e4\\x41\\101" }}', "äAA"),
        ("}} { { }", "}} { { }"),
    ],
)
def test_what_a_template_gives(template: str, gives: str) -> None:
    assert expand(template, {"URL": url}) == gives


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ .Field }}", "'.Field }}' is not understood, at character 2"),
        ("{{ $x := 1 }}", "is not understood"),
        ("{{ if true }}x{{ end }}", "'true' is no text"),
        ("{{ range }}", "range is not supported here"),
        ('{{ URL "a" "b" }}', "URL takes one text"),
        ("{{ URL 3 }}", "URL takes one text"),
        ('{{ exec "rm" }}', "exec is no function"),
        ('{{ URL "a', "not understood"),
        ("{{ URL", "the action does not end"),
        ("{{", "the action does not end"),
        ('{{ "\\q" }}', "\\q is no escape that Go knows"),
        ('{{ "\\ud800" }}', "no character"),
        ('{{ printf "%5d" 3 }}', "%5d in printf is not supported"),
        ('{{ printf "%s" }}', "too few"),
        ('{{ printf "x" 1 }}', "too many"),
        ("{{ /* open }}", "a comment that does not end"),
        ("{{" + "(" * 50, "more than 8 parentheses"),
        ('{{ "a" "b" }}', "where the action should end"),
        ("{{ print 1 }}" * 300, "more than 256 actions"),
        ("x" * 70_000, "more than 65536 characters"),
    ],
)
def test_what_is_refused_and_why(template: str, why: str) -> None:
    with pytest.raises(TemplateError) as refused:
        expand(template, {"URL": url})
    assert why in str(refused.value)


def test_what_comes_out_is_bounded() -> None:
    with pytest.raises(TemplateError, match="characters come out"):
        expand('{{ URL "x" }}' * 10, {"URL": lambda _: "y" * 20_000})


@given(st.text())
def test_a_literal_gives_itself(text: str) -> None:
    assert expand(literal(text), {}) == text


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_what_is_quoted_is_read_back(text: str) -> None:
    assert expand("{{ " + quote(text) + " }}", {}) == text


@given(st.text(alphabet='{}-|()"`\\ URLprintf%sd0/*\n', max_size=80))
def test_any_text_is_expanded_or_refused(template: str) -> None:
    try:
        assert isinstance(expand(template, {"URL": url}), str)
    except TemplateError as refused:
        assert str(refused)
