"""Templates: what they give, and that none of them gets out of its sandbox, takes long or fills the memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.serve.templates import BadTemplate, Templates


def function(name: str) -> str:
    return f"<{name}>"


VALUES = {"name": "web-1", "roles": ["a", "b"], "url": function, "hostile": "{{ 7*7 }} {% raw %} $(rm -rf /) '\"\n"}


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates()


@pytest.mark.parametrize(
    ("template", "gives"),
    [
        ("console=ttyS0 {name}", "console=ttyS0 {name}"),
        ("host={{ name }}", "host=web-1"),
        ("{% for r in roles %}{{ r }}{% if not loop.last %},{% endif %}{% endfor %}", "a,b"),
        ("{{ url('ks') }}", "<ks>"),
        ("{{ 'a b' | quote }} {{ roles | json }} {{ {'k': 'ä'} | yaml }}", '\'a b\' ["a", "b"] {"k": "ä"}'),
        ("{{ missing | default('none') }}", "none"),
        ("{{ 'x' * 3 }}{{ 2 ** 10 }}{{ 7 % 4 }}", "xxx10243"),
        ("{{ name | upper | replace('W', 'V') }}", "VEB-1"),
        ("{{ name.replace('w', 'v') ~ ','.join(roles) ~ (1 + 2) }}", "veb-1a,b3"),
        ("{{ [{'n': 1}, {'n': 2}] | sum('n') }}{{ [{'n': 1}] | join(attribute='n') }}{{ 2.55 | round(1) }}", "312.5"),
        ("{% set a, b = 1, roles %}{{ b }}{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(a) }}", "['a', 'b']<1>"),
    ],
)
def test_what_a_template_gives(templates: Templates, template: str, gives: str) -> None:
    assert templates.render(template, VALUES) == gives


def test_a_value_is_data_whatever_is_in_it(templates: Templates) -> None:
    assert templates.render("{{ hostile }}", VALUES) == VALUES["hostile"]


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ ().__class__.__base__.__subclasses__() }}",
        "{{ url.__globals__ }}",
        "{{ url.__code__ }}",
        "{{ url.__init__ }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ '{0.__class__}'.format_map({}) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ roles.append('c') }}",
        "{{ roles.__init__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ lipsum() }}",
        "{{ cycler('a').__init__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{{ loop.__class__ }}",
        "{{ namespace().__class__ }}",
        "{{ dict.__subclasses__() }}",
        "{{ range.__class__ }}",
    ],
)
def test_no_template_gets_out(templates: Templates, template: str) -> None:
    with pytest.raises(BadTemplate):
        templates.render(template, VALUES)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ['a'] | map(attribute='__class__') | list }}",
        "{{ ['a'] | map('attr', '__class__') | list }}",
        "{{ [url] | groupby('__globals__') }}",
        "{{ [url] | sort(attribute='__code__') | list }}",
        "{{ [url] | sum(attribute='__globals__') }}",
    ],
)
def test_filters_that_look_at_attributes_find_nothing(templates: Templates, template: str) -> None:
    try:
        found = templates.render(template, VALUES)
    except BadTemplate:
        return
    assert "class" not in found
    assert "test_templates" not in found


GROWS = (  # by itself, thirty times
    "{{% set ns = namespace(x='x' * 60000) %}}{{% for i in range(30) %}}{{% set ns.x = {} %}}{{% endfor %}}"
)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for a in range(10**9) %}{% endfor %}", "range of more than 10000 steps"),
        (
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}"
            + "{% endfor %}" * 2,
            "longer than 0.5 s",
        ),
        ("{% for a in range(9999) %}{{ 'x' * 60000 }}{% endfor %}", "million characters"),
        ("{{ 'x' * 10**9 }}", "a power this high|a repetition this long"),
        ("{{ (('x' * 65536) * 4096)|length }}", "a repetition this long"),
        ("{{ [1]|batch(50000000, 0)|list }}", "batch"),
        ("{{ 'x'|wordwrap(1) }}", "wordwrap"),
        ("{{ 9 ** 9999 }}", "a power this high"),
        ("{{ ('x' * 60000) | replace('x', 'y' * 60000) }}", "a replacement this long"),
        (GROWS.format("ns.x ~ ns.x"), "million characters"),
        (GROWS.format("ns.x + ns.x"), "million characters"),
        (GROWS.format("ns.x | replace('x', 'xx')"), "a replacement this long"),
        (GROWS.format("ns.x | urlencode | replace('x', '%')"), "million characters|a replacement this long"),
        (GROWS.format("[ns.x, ns.x]"), "million characters"),
        (GROWS.format("{'a': ns.x, 'b': ns.x}"), "million characters"),
        (GROWS.format("dict(a=ns.x, b=ns.x)"), "million characters"),
        (GROWS.format("(ns.x, ns.x)"), "million characters"),
        (
            "{% set ns = namespace(x=9999) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
            "a number",
        ),
        ("{% set x %}{% for i in range(9999) %}{{ ('x' * 60000)[1:] }}{% endfor %}{% endset %}", "million characters"),
        ("{{ ('x' * 60000).replace('', 'y' * 60000) }}", "a replacement this long"),
        ("{{ ('x' * 60000).join('y' * 60000) }}", "million characters"),
        ("{{ ('y' * 60000) | join('x' * 60000) }}", "million characters"),
        ("{{ '{:1000000000}'.format(1) }}", "format"),
        ("{{ ('\t' * 9).expandtabs(10**9) }}", "expandtabs"),
        ("{{ (1).to_bytes(10**9) }}", "to_bytes"),
        ("{{ ('<!-->' * 13000) | striptags }}", "striptags"),
        ("{{ 1.5 | round(999999999, 'ceil') }}", "64 digits"),
        ("{{ [[]] | sum(start=[]) }}", "adds numbers"),
        ("{{ ([('x' * 60000)] * 60000) | sort }}", "million characters"),
        ("{{ namespace(a=1) }}", "a namespace is no value"),
        (
            "{% for a in range(9999) %}{% for b in range(9999) | map('string') | select('in', 'x' * 60000) %}"
            "{% endfor %}{% endfor %}",
            "longer than 0.5 s|million characters",
        ),
        ("{{ missing }}", "'missing' is undefined"),
        ("line\n{{ 1 / 0 }}", "division by zero .line 2."),
        ("{% if %}", "Expected an expression"),
        ("{{ name", "line 1"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply|line"),
    ],
)
def test_what_is_too_much_or_wrong_says_so(templates: Templates, template: str, why: str) -> None:
    with pytest.raises(BadTemplate, match=why):
        templates.render(template, VALUES)


@given(st.text(alphabet="{}%# abn'\"()|.[]*+-1\n", max_size=60))
def test_any_text_is_rendered_or_refused(template: str) -> None:
    try:
        assert isinstance(Templates().render(template, VALUES), str)
    except BadTemplate as refused:
        assert str(refused)
