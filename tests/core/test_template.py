"""Templates: what each language means, what is refused, and what a rendering may cost."""

import random

import pytest

from deliveries.errors import BadTemplate
from deliveries.mime.template import MOST_SOURCE, Dialect, compile_template

NATIVE, HANDLEBARS, MUSTACHIO = Dialect.NATIVE, Dialect.HANDLEBARS, Dialect.MUSTACHIO


def shown(source, data=None, dialect=NATIVE, part="html"):
    return getattr(compile_template(**{part: source}, dialect=dialect).render(data or {}), part)


def why(source, data=None, dialect=NATIVE, part="html"):
    with pytest.raises(BadTemplate) as caught:
        shown(source, data, dialect, part)
    assert caught.value.part in (part, "")
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "data", "expected"),
    [
        ("Hi {{{NAME}}} {{ NAME }}", {"NAME": "Ada"}, "Hi Ada Ada"),
        ("{{ N|default('there') }}|{{ N|default(M)|upper }}", {"M": "m"}, "there|M"),
        ("{{ A }} {{ B }} {{ C }} {{ D }}", {"A": 3.0, "B": 1.25, "C": True, "D": None}, "3 1.25 true "),
        ("{% if N > 3 and not (A == 'x' or B) %}y{% elif N %}n{% else %}z{% endif %}", {"N": 5, "A": "a"}, "y"),
        ("{% if N > 3 %}y{% endif %}{% if 'b' in L %}b{% endif %}{% if X is defined %}x{% endif %}", {"N": "5",
         "L": ["b"]}, "yb"),
        ("{% for i in L %}{{ loop.index }}{{ i.n }}{% if not loop.last %},{% endif %}{% endfor %}", {"L": [{"n": "a"},
         {"n": "b"}]}, "1a,2b"),
        ("{% for k, v in O %}{{ k }}={{ v }};{% endfor %}{% for i in NONE %}{% else %}empty{% endfor %}",
         {"O": {"a": 1}}, "a=1;empty"),
        ("{{ L[0].x }}{{ L.1 }}{{ O['a b'] }}{{ L|length }}{{ M|join('-') }}", {"L": [{"x": 1}, 2], "O": {"a b": 3},
         "M": [4, 5]}, "12324-5"),
        ("{{ P|round(2) }} {{ T|trim|title }} {{ U|urlencode }} {{ T|truncate(4) }}", {"P": 9.5, "T": " ab cd ",
         "U": "a b&c"}, "9.50 Ab Cd a%20b%26c  ab…"),
        ("{# nothing #}{ } {a} {\n", {}, "{ } {a} {\n"),
        ("{{ O.items }}{{ O.__class__ }}{{ S.upper }}{{ O['keys'] }}", {"O": {}, "S": "s"}, ""),
    ],
)  # fmt: skip
def test_the_native_language(source, data, expected):
    assert shown(source, data) == expected


@pytest.mark.parametrize(
    ("source", "data", "expected"),
    [
        ("{{a}} {{{a}}} {{&a}} {{b.c}} {{gone.d}}", {"a": "<", "b": {"c": 1}}, "&lt; < < 1 "),
        ("{{#each l}}{{@index}}{{this}}{{#unless @last}},{{/unless}}{{/each}}", {"l": ["a", "b"]}, "0a,1b"),
        ("<ul>\n  {{#each l}}\n  <li>{{n}} {{../s}} {{@root.s}}</li>\n  {{else}}\n  none\n  {{/each}}\n</ul>",
         {"l": [{"n": 1}], "s": 2}, "<ul>\n  <li>1 2 2</li>\n</ul>"),
        ("{{#if a}}A{{else if b}}B{{else}}C{{/if}}{{#unless a}}!{{/unless}}", {"a": 0, "b": 1}, "B!"),
        ("{{#with p}}{{a}}{{/with}}{{#each o as |v k|}}{{k}}={{v}}{{@key}}{{/each}}", {"p": {"a": 1}, "o": {"x": 2}},
         "1x=2x"),
        ("{{#equals a 'x'}}=={{else}}!={{/equals}}"
         "{{#if (greaterThan n 3)}}>{{/if}}{{insert g \"default=there\"}}{{length l}}",
         {"a": "x", "n": "5", "l": [1, 2]},
         "==>there2"),
        ("{{! no }}{{!-- }} --}}a  {{~b~}}  c \\{{raw}} {% if %} {# x #}", {"b": 1}, "a1c {{raw}} {% if %} {# x #}"),
        ("{{[odd key]}}{{l.[1]}}{{l.0}}{{l.length}}", {"odd key": 1, "l": [2, 3]}, "1322"),
    ],
)  # fmt: skip
def test_handlebars_is_read_as_sendgrid_and_mailgun_have_it(source, data, expected):
    assert shown(source, data, HANDLEBARS) == expected


def test_mustachio_is_read_as_postmark_has_it():
    source = (
        "{{#p}}{{n}}{{../x}}{{/p}}{{^gone}}-{{/gone}}{{#flag}}{{x}}{{/flag}}{{#each l}}{{.}};{{/each}}{{#e}}!{{/e}}"
    )
    data = {"p": {"n": "&"}, "x": 1, "flag": True, "l": [1, 2], "e": []}
    assert shown(source, data, MUSTACHIO) == "&amp;1-11;2;"


@pytest.mark.parametrize(
    ("dialect", "source"), [(NATIVE, "{{{V}}}{{ V }}"), (HANDLEBARS, "{{V}}"), (MUSTACHIO, "{{V}}")]
)
def test_values_are_escaped_in_html_and_nowhere_else(dialect, source):
    found = compile_template(source, source, source, dialect).render({"V": "<b a=\"1\" c='2'>&"})
    assert "<" not in found.html and '"' not in found.html and "'" not in found.html
    assert "<b a=\"1\" c='2'>&" in found.text and "<b" in found.subject


def test_the_author_may_say_that_a_value_is_html():
    assert shown("{{ V|safe }}", {"V": "<b>"}) == "<b>"


@pytest.mark.parametrize("value", ["a\r\nBcc: x@y.example", "a\nb", "a\rb"])
def test_a_subject_with_a_line_break_is_refused(value):
    assert "line break" in why("Hi {{{N}}}", {"N": value}, part="subject")


@pytest.mark.parametrize(
    "source",
    [
        "{{ a ~ a }}", "{% set a = 1 %}", "{{ a * 9 }}", "{{ a() }}", "{{ range(9) }}", "{% macro x() %}",
         "{% include 'x' %}",
        "{{", "{% if a", "{% if %}", "{% endif %}", "{% if a %}", "{% for x in %}",
         "{% for a, b, c in d %}{% endfor %}",
        "{% if a %}{% endfor %}", "{{ a|nope }}", "{{ a|default }}", "{{ a. }}", "{{ a[ }}", "{{ }}", "{{ 'x }}",
         "{{ a b }}",
        "\x01{ a }\x01", "{{ " + "(" * 30 + "a" + ")" * 30 + " }}", "{{ " + "not " * 100 + "a }}",
         "{% for i in a %}{{ loop.x }}{% endfor %}",
        "{% if a %}" * 21 + "{% endif %}" * 21, "{% if a %}" + "{% elif a %}" * 20_000 + "{% endif %}",
         "{{ a" + "|upper" * 160 + " }}",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(source):
    assert why(source, {"a": 1})


@pytest.mark.parametrize("dialect", [HANDLEBARS, MUSTACHIO])
@pytest.mark.parametrize(
    "source",
    ["{{> p}}", "{{#if a}}", "{{/if}}", "{{#foo a}}{{/foo}}", "{{foo a}}", "{{../a}}", "{{#each a}}{{/if}}", "{{}}",
     "{{(a}}",
     "{{else}}", "{{a", "{{#if}}{{/if}}", "{{@index}}", "{{#if a}}" + "{{else if a}}" * 5000 + "{{/if}}",
      "{{" + "(" * 5000 + "}}",
     "{{#a}}" * 30 + "{{/a}}" * 30],
)  # fmt: skip
def test_what_is_not_understood_is_refused_in_the_other_languages(dialect, source):
    assert why(source, {"a": 1}, dialect)


def test_the_line_of_a_fault_is_named():
    assert why("a\nb\n{{ c|nope }}").startswith("Line 3: ")
    assert why("a\n{{#each x}}\n", dialect=HANDLEBARS).startswith("Line ")


def test_a_rendering_ends_at_its_bounds():
    many = {"a": list(range(1000)), "big": "x" * 1_000_000}
    nested = "{% for i in a %}" * 3 + "x" + "{% endfor %}" * 3
    assert "too many steps" in why(nested, many)
    assert "too large" in why("{% for i in a %}" + "x" * 100_000 + "{% endfor %}", many)
    assert "too large" in why("{{ big }}{{ big }}{{ big }}", many)
    assert "too large" in why("{% for i in a %}{{ big }}{% endfor %}", many)
    assert "too large" in why("{{#each a}}" + "x" * 100_000 + "{{/each}}", many, HANDLEBARS)
    deep = []
    for _ in range(5000):
        deep = [deep]
    assert "nested" in why("{{ a }}", {"a": deep})
    assert why("{{ a|truncate(b) }}", {"a": "x", "b": float("inf")})
    assert why("{% for i in 5 %}{% endfor %}")


def test_any_text_is_rendered_or_refused():
    """Pieces of all languages in any order: never another exception."""
    pieces = ["{{", "}}", "{%", "%}", "{{{", "}}}", "{#", "#}", "#if ", "#each ", "/if", "/each", "else", "if ",
     "for i in ", "endif",
              "endfor", "a", "b.c", "this", "../", "@index", "|", "upper", "default(", ")", "(", "'", '"', " ", "\n",
               "~", "!", "&", "^", "[0]",
              ".", "==", "and ", "1", "\\"]  # fmt: skip
    data = {"a": [1, {"c": "x"}, []], "b": {"c": "<>"}}
    chance, good = random.Random(7), 0
    for n in range(6000):
        source = "".join(chance.choices(pieces, k=chance.randint(1, 14)))
        try:
            shown(source, data, list(Dialect)[n % 3])
            good += 1
        except BadTemplate:
            pass
    assert good > 100


@pytest.mark.parametrize("opened", ["{{", "{{{", "{%", "{{!--", "\\{{", "{{~{"])
@pytest.mark.parametrize("dialect", [NATIVE, HANDLEBARS])
def test_half_a_megabyte_of_tags_that_are_never_closed_is_read_once(opened, dialect):
    source = opened * (MOST_SOURCE // len(opened))
    if dialect is HANDLEBARS and opened == "{%":
        assert shown(source, dialect=dialect) == source
    else:
        assert "never closed" in why(source, dialect=dialect)


def test_a_list_that_would_be_joined_to_more_than_a_mail_may_have_is_refused_before_it_is():
    assert "too large" in why("{% if L|join(S) %}x{% endif %}", {"L": ["a"] * 4_000, "S": "x" * 100_000})


def test_what_stands_alone_on_a_line_is_told_by_that_line():
    source = "a\n{{#if X}}\n b {{/if}}\n{{!-- c --}}\n{{#if X}}{{/if}}\n  {{#if X}}  \nd\n{{/if}}\n"
    assert shown(source, {"X": True}, HANDLEBARS) == "a\n b \n\nd\n"
