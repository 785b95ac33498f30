"""Each face's table of fields stands in docs/migrating.md, name by name: nothing is honoured or ignored in silence."""

import tracemalloc
from pathlib import Path
from uuid import UUID

import pytest

from deliveries.notify import words
from mailapi.compat.mailgun import shapes as mailgun
from mailapi.compat.postmark import shapes as postmark
from mailapi.compat.reading import Fields, Reading
from mailapi.compat.sendgrid import leaving
from mailapi.compat.sendgrid import shapes as sendgrid
from mailapi.compat.templates import Templates
from mailapi.schemas.emails import MAX_MERGED

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "migrating.md").read_text()


@pytest.mark.parametrize(
    "fields",
    [postmark.MESSAGE, sendgrid.REQUEST, sendgrid.PERSONALIZATION, leaving.ASM, leaving.TRACKING, mailgun.MESSAGE],
)
def test_the_migration_guide_names_every_field_of_a_face(fields: Fields) -> None:
    names = {*fields.honoured, *fields.without_effect, *fields.refused}
    assert {name for name in names if name not in DOCS} == set()


def test_a_field_stands_in_one_kind_only() -> None:
    for fields in (postmark.MESSAGE, sendgrid.REQUEST, mailgun.MESSAGE, mailgun.MIME):
        honoured, idle, refused = set(fields.honoured), set(fields.without_effect), set(fields.refused)
        assert not (honoured & idle or honoured & refused or idle & refused)


def test_a_field_is_honoured_named_or_refused_and_a_null_is_absent() -> None:
    reading = Reading()
    reading.sort({"To": 1, "InlineCss": True, "TemplateId": 1, "Subjekt": "x", "Nothing": None}, postmark.MESSAGE)
    assert reading.ignored == ["InlineCss"]
    assert [(f.field, f.code) for f in reading.faults] == [
        ("TemplateId", "not_available"),
        ("Subjekt", "unknown_field"),
    ]
    assert "Subject" in reading.faults[1].message


@pytest.mark.parametrize(
    ("reply", "codes"),
    [
        ("550 5.1.1 no such user", ("550", "5.1.1")),
        ("550-5.7.1 blocked", ("550", "5.7.1")),
        ("421 later", ("421", "")),
        ("5501 x", ("", "")),
        ("he asked for it", ("", "")),
        ("", ("", "")),
    ],
)
def test_codes_are_read_from_replies_and_not_made_of_other_words(reply: str, codes: tuple[str, str]) -> None:
    assert words.codes(reply) == codes


def test_a_bounce_number_leads_back_to_its_delivery() -> None:
    ident = UUID("01a2133a-9e66-7abc-a416-86b7f5092377")
    first, last = words.span(words.number(ident))
    assert words.number(ident) < 2**53 and first <= int(ident) <= last


def test_a_thousand_copies_of_a_large_body_are_refused_before_they_are_made() -> None:
    people = [{"to": [{"email": f"{n}@b.example"}]} for n in range(100)]
    content = [{"type": "text/html", "value": "<%asm_group_unsubscribe_raw_url%>" + "a" * (MAX_MERGED // 20)}]
    request = {"from": {"email": "a@b.example"}, "subject": "x", "content": content, "personalizations": people}
    reading = Reading()
    tracemalloc.start()
    try:
        assert sendgrid.drafts(request, Templates(UUID(int=0), []), reading) == []
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(f.field, f.code) for f in reading.faults] == [("personalizations", "too_large")]
    assert most < 2 * MAX_MERGED
