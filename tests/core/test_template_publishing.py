"""What publishing does to a template: CSS in the elements, a text part, and every block where it stood."""

import pytest

from deliveries.errors import BadTemplate
from deliveries.mime.template import Dialect, compile_template
from deliveries.mime.template.publishing import publication, text_of
from deliveries.mime.template.variables import Variable, filled

SHEET = "<style>td{color:red} @media (max-width:600px){td{color:blue}} a:hover{color:green} p{color:{{C}}}</style>"
DATA = {"N": "Ada", "C": "navy", "U": "https://x.example/?a=1&b=2", "L": [{"n": "one"}, {"n": "two"}]}


def rendered(html, dialect=Dialect.NATIVE):
    return compile_template(html, dialect=dialect).render(DATA).html


def test_css_is_inlined_around_loops_and_values():
    body = '<p title="a > {{N}}">Hi {{{N}}}</p><table>{% for i in L %}<tr><td>{{i.n}}</td></tr>{% endfor %}</table>'
    html = rendered(publication(SHEET + body, "").html)
    assert html.count('<tr><td style="color: red;">') == 2 and "<td" in html.partition("<table>")[2]
    assert html.index("<table>") < html.index("one") < html.index("two") < html.index("</table>")
    assert 'style="color: navy;"' in html and 'title="a > Ada"' in html and "Hi Ada" in html
    assert "@media (max-width:600px)" in html and "a:hover" in html
    assert "slot" not in html and "tbody" not in html


def test_handlebars_are_kept_too():
    body = "<p>{{N}}</p><table>{{#each L}}<tr><td>{{n}}</td></tr>{{/each}}</table>"
    made = publication(SHEET + body, None, Dialect.HANDLEBARS)
    assert rendered(made.html, Dialect.HANDLEBARS).count("<td style") == 2 and made.text_at_render


def test_nothing_is_fetched(tmp_path):
    sheet = tmp_path / "a.css"
    sheet.write_text("p{color:red}")
    for where in (str(sheet), f"file://{sheet}", "http://127.0.0.1:1/a.css"):
        html = publication(f'<link rel="stylesheet" href="{where}"><style>b{{}}</style><p>x</p>', "").html
        assert "red" not in html


def test_a_block_that_would_get_lost_is_refused():
    with pytest.raises(BadTemplate, match="gets lost"):
        publication("<style>{% if A %}p{color:red}{% endif %}</style><p>x</p>", "")


def test_a_text_part_is_made_with_its_links():
    made = publication(
        '<h1>Hi {{{N}}}</h1><ul>{% for i in L %}<li>{{ i.n }}</li>{% endfor %}</ul><a href="{{U}}">go</a>', None
    )
    text = compile_template(text=made.text).render(DATA).text
    assert text.splitlines() == ["Hi Ada", "", "  * one", "  * two", f"[go]({DATA['U']})"]
    assert not made.text_at_render


def test_rows_of_a_table_are_made_text_of_when_the_mail_is_known():
    made = publication("<p>a</p><table>{% for i in L %}<tr><td>{{i.n}}</td></tr>{% endfor %}</table>", None)
    assert made.text is None and made.text_at_render
    assert text_of(rendered(made.html)).split() == ["a", "one", "two"]


def test_an_empty_text_part_means_none_and_a_given_one_stays():
    assert publication("<p>x</p>", "").text is None
    assert publication("<p>x</p>", "own").text == "own"
    assert publication(None, "own").text == "own"
    assert publication("<img src='x'>", None).text is None


VARIABLES = [Variable("NAME", "string"), Variable("N", "number", 3), Variable("L", "list", [])]


def test_variables_are_filled_from_values_and_fallbacks():
    assert filled(VARIABLES, {"NAME": "Ada"}) == ({"NAME": "Ada", "N": 3, "L": []}, [])


@pytest.mark.parametrize(
    ("given", "field", "word"),
    [
        ({}, "template.variables.NAME", "missing_variable"),
        ({"NAME": None}, "template.variables.NAME", "missing_variable"),
        ({"NAME": 5}, "template.variables.NAME", "wrong_type"),
        ({"NAME": "a", "N": True}, "template.variables.N", "wrong_type"),
        ({"NAME": "a", "N": "5"}, "template.variables.N", "wrong_type"),
        ({"NAME": "a", "L": {}}, "template.variables.L", "wrong_type"),
        ({"NAME": "a" * 100_001}, "template.variables.NAME", "too_long"),
        ({"NAME": "a", "NAMES": "b"}, "template.variables.NAMES", "unknown_variable"),
    ],
)
def test_what_does_not_fit_is_named(given, field, word):
    _, faults = filled(VARIABLES, given)
    assert [(f.field, f.code) for f in faults] == [(field, word)]


@pytest.mark.parametrize(
    "html",
    [
        "<table>" + "<tr><td>x</td></tr>" * 10_000 + "<tr><td>" + "y" * 100_000 + "</td></tr></table>",
        "<table><tr><td>" + "a<br>" * 50_000 + "</td><td>" + "y" * 100_000 + "</td></tr></table>",
        "<ul>" * 200 + "<li>x</li>" * 10_000,
        'a<div style="margin-top: 9999999em; padding-left: 9999999em">b</div>',
    ],
    ids=["a wide cell", "a tall cell", "deep lists", "wide margins"],
)
def test_a_text_part_grows_with_its_html_whatever_the_tables_and_margins(html):
    assert len(text_of(html)) < 5 * len(html)


def test_cells_are_words_rows_are_lines_and_what_is_hidden_stays_out():
    html = '<div style="DISPLAY : none">no</div><table><tr><th>A<th>B</tr><tr><td>1</td><td>2</td></tr></table><p>c</p>'
    assert text_of(f'<?xml version="1.0" encoding="utf-8"?>\n{html}').split("\n") == ["A B", "1 2", "", "c"]
    assert text_of("<!-- x -->") is None


def test_more_rules_than_the_elements_bear_are_refused():
    with pytest.raises(BadTemplate, match="too many rules"):
        publication("<style>" + "p{color:red}" * 10_000 + "</style>" + "<p>" * 10_000, "")


@pytest.mark.parametrize("opened", ["<!--", "<style ", "<style>", "<a ", '<a "'])
def test_markup_that_is_never_closed_is_read_once(opened):
    publication("<style>b{}</style>" + opened * 30_000, "")
