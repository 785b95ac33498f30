"""Links of ours in a mail: what is rewritten, and that an altered link is none."""

from __future__ import annotations

import random
import string
import uuid

import pytest

from deliveries.errors import TokenError
from deliveries.mime import links
from deliveries.mime.links import Kind
from deliveries.mime.verp import Keys

KEYS = Keys({1: b"k" * 32})
DELIVERY = uuid.UUID(int=7)
TARGET = "https://shop.test/order?id=17&x=%20y#top"


def test_a_token_names_the_delivery_and_where_a_click_leads() -> None:
    for kind, target in ((Kind.OPEN, ""), (Kind.CLICK, TARGET), (Kind.UNSUBSCRIBE, "")):
        token = links.mint(KEYS, kind, DELIVERY, target)
        assert links.read(KEYS, kind, token) == (DELIVERY, target)
        assert token == links.mint(KEYS, kind, DELIVERY, target)
        for other in set(Kind) - {kind}:
            with pytest.raises(TokenError):
                links.read(KEYS, other, token)


def test_an_older_key_still_reads_and_a_dropped_one_does_not() -> None:
    token = links.mint(KEYS, Kind.CLICK, DELIVERY, TARGET)
    assert links.read(Keys({2: b"n" * 32, 1: b"k" * 32}), Kind.CLICK, token)[0] == DELIVERY
    with pytest.raises(TokenError, match="unknown key"):
        links.read(Keys({2: b"n" * 32}), Kind.CLICK, token)


def test_ten_thousand_altered_tokens_are_none_of_ours() -> None:
    rng = random.Random(8058)
    token = links.mint(KEYS, Kind.CLICK, DELIVERY, TARGET)
    letters = string.ascii_letters + string.digits + "-_"
    for _ in range(10_000):
        octets = list(token)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(octets))
            match rng.randrange(3):
                case 0:
                    octets[at] = rng.choice(letters)
                case 1:
                    octets.insert(at, rng.choice(letters))
                case 2:
                    del octets[at]
        altered = "".join(octets)
        if altered != token:
            with pytest.raises(TokenError):
                links.read(KEYS, Kind.CLICK, altered)


def rewritten(html: str) -> tuple[str, list[str]]:
    found: list[str] = []

    def link(target: str) -> str:
        found.append(target)
        return f"https://t.test/c/{len(found)}"

    return links.rewrite(html, link), found


@pytest.mark.parametrize(
    ("html", "expected", "targets"),
    [
        ('<a href="https://a.test/?x=1&amp;y=2">A</a>', '<a href="https://t.test/c/1">A</a>',
         ["https://a.test/?x=1&y=2"]),
        ("<A class=b HREF='http://a.test'>A</A>", '<A class=b HREF="https://t.test/c/1">A</A>', ["http://a.test"]),
        ("<a\n  href=https://a.test/x >A", '<a\n  href="https://t.test/c/1" >A', ["https://a.test/x"]),
        ('<area title="a > b" href="https://a.test/">', '<area title="a > b" href="https://t.test/c/1">',
         ["https://a.test/"]),
        ('<a href=" https://a.test/ü ">A</a>', '<a href="https://t.test/c/1">A</a>', ["https://a.test/%C3%BC"]),
    ],
)  # fmt: skip
def test_links_of_the_web_are_rewritten_and_the_rest_of_the_tag_stays(html, expected, targets) -> None:
    assert rewritten(html) == (expected, targets)


@pytest.mark.parametrize(
    "html",
    ['<a href="mailto:a@b.test">x</a>', '<a href="#top">x</a>', '<a href="/path">x</a>', '<a href="tel:1">x</a>',
     '<a href="javascript:alert(1)">x</a>', '<a href="//a.test/">x</a>', '<a name="x">y</a>', "<a>x</a>",
     '<a href="https://">x</a>', '<a href="https://a.test/ b">x</a>', '<a href="https://a.test/&#10;b">x</a>',
     '<a href="https://bücher.test/">x</a>', '<a href="https://a.test:port/">x</a>', '<a href="http://[x">y</a>',
     '<a data-no-track href="https://a.test/">x</a>', '<a href="https://a.test/" data-pm-no-track>x</a>',
     '<abbr href="https://a.test/">x</abbr>', '<link href="https://a.test/">', '<img src="https://a.test/">',
     '<a href="https://a.test/' + "x" * 1500 + '">x</a>', '<a href="https://a.test/">'[:-1], "plain https://a.test/"],
)  # fmt: skip
def test_everything_else_stays_as_it_was(html: str) -> None:
    assert rewritten(html) == (html, [])


@pytest.mark.parametrize("piece", ["<a ", '<a "', "<a '", '<a href="', "<a href=", "<a href='x\"", "<a x=\"'"])
def test_hostile_html_takes_no_time(piece: str) -> None:
    html = piece * (1_000_000 // len(piece))
    assert len(rewritten(html)[0]) >= len(html)  # the bound is pytest's patience: a quadratic search takes hours


def test_the_picture_stands_at_the_end_of_the_body() -> None:
    html = links.with_pixel("<body>x</body></html>", "https://t.test/o/a&b")
    assert html.startswith('<body>x<img src="https://t.test/o/a&amp;b"') and html.endswith("</body></html>")
    assert links.with_pixel("<p>x", "https://t.test/o/a").startswith("<p>x<img ")


@pytest.mark.parametrize(
    ("method", "headers", "why"),
    [
        ("GET", {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36"}, ""),
        ("GET", {"user-agent": "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com "
                               "GoogleImageProxy)"}, ""),
        ("HEAD", {"user-agent": "Mozilla/5.0 (X11) Chrome/140.0"}, "head"),
        ("GET", {"user-agent": "Mozilla/5.0 (X11) Chrome/140.0", "sec-purpose": "prefetch;prerender"}, "prefetch"),
        ("GET", {}, "no_user_agent"),
        ("GET", {"user-agent": "Mozilla/5.0"}, "privacy_proxy"),
        ("GET", {"user-agent": "curl/8.5.0"}, "user_agent"),
        ("GET", {"user-agent": "Mozilla/5.0 (compatible; bingbot/2.0)"}, "user_agent"),
        ("GET", {"user-agent": "Slackbot-LinkExpanding 1.0"}, "user_agent"),
    ],
)  # fmt: skip
def test_programs_are_told_from_people(method: str, headers: dict[str, str], why: str) -> None:
    assert links.automatic(method, headers) == why
