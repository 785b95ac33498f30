"""Returned mails of our own corpus, each format once, read as a person would read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deliveries.bounces import report as reading
from deliveries.bounces.report import Kind, ReportKind, read_report
from deliveries.mime import verp

CORPUS = Path(__file__).parent.parent / "corpus"
ROWS = [json.loads(line) for line in (CORPUS / "expected.jsonl").read_text(encoding="utf-8").splitlines()]


def mail(name: str) -> bytes:
    return (CORPUS / "bounces" / name).read_bytes()


@pytest.mark.parametrize("row", ROWS, ids=[row["file"] for row in ROWS])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_each_format_is_read(row: dict[str, Any], line_end: bytes) -> None:
    report = read_report(mail(row["file"]).replace(b"\n", line_end))
    assert report.kind == row["is"]
    assert [r.address for r in report.recipients] == row["recipients"]
    assert report.token == row["token"]
    assert report.original_message_id == row["message_id"]
    if row["kind"]:
        first = report.recipients[0]
        assert (first.kind, first.status, first.category) == (row["kind"], row["status"], row["category"]), first.rule


def test_every_mail_of_the_corpus_has_an_expectation() -> None:
    assert {row["file"] for row in ROWS} == {path.name for path in (CORPUS / "bounces").iterdir()}


def test_the_token_field_is_the_one_that_compose_writes() -> None:
    # bounces and mime may not import each other; their literal must be one
    assert reading.TOKEN_HEADER == verp.TOKEN_HEADER


def test_a_token_in_the_reports_own_header_does_not_count() -> None:
    forged = b"X-Mailapi-Delivery: v1.forged\n" + mail("qmail-prose-unknown.eml")
    assert read_report(forged).token is None


def test_a_token_is_found_where_the_returned_mail_was_quoted_into_the_text() -> None:
    text = mail("qmail-prose-unknown.eml").replace(b"\nSubject: Hello", b"\n> X-Mailapi-Delivery: v1.q\nSubject: Hello")
    assert read_report(text).token == "v1.q"


def test_an_address_is_hard_only_for_what_was_said_of_it() -> None:
    both = mail("dsn-utf8-recipient.eml").replace(
        b"\n--uu--",
        b"\nFinal-Recipient: rfc822; full@town.example\nAction: failed\nStatus: 5.2.2\n"
        b"Diagnostic-Code: smtp; 552 5.2.2 mailbox full\n\n--uu--",
    )
    assert [r.kind for r in read_report(both).recipients] == [Kind.HARD, Kind.SOFT]


def test_what_the_diagnostic_says_counts_before_what_the_status_alone_would_mean() -> None:
    fields = b"Final-Recipient: rfc822; kim@example.net\nAction: failed\nStatus: 5.1.1\n"
    fields += b"Diagnostic-Code: smtp; 550 5.1.1 Mailbox is busy"
    head = (
        b"From: MAILER-DAEMON@mx.example\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n"
    )
    parts = b"--b\n\nIt was not delivered.\n--b\nContent-Type: message/delivery-status\n\n" + fields + b"\n--b--\n"
    (said,) = read_report(head + parts).recipients
    assert (said.kind, said.status) == ("unknown", "5.1.1")


def test_a_delay_beside_a_failure_is_told_by_its_action() -> None:
    both = mail("dsn-utf8-recipient.eml").replace(
        b"\n--uu--",
        b"\nFinal-Recipient: rfc822; slow@town.example\nAction: delayed\nStatus: 4.1.1\n\n--uu--",
    )
    report = read_report(both)
    assert report.kind is ReportKind.BOUNCE
    assert [r.action for r in report.recipients] == ["failed", "delayed"]
    assert report.recipients[1].kind is not Kind.HARD


def test_a_delivered_report_is_no_bounce_even_with_words_of_failure() -> None:
    text = mail("dsn-relayed.eml").replace(b"Your message was relayed", b"User unknown, undeliverable, relayed")
    assert read_report(text).kind is ReportKind.DELIVERED


@pytest.mark.parametrize("octets", [b"", b"\n\n", b"\x00" * 100, b"no header here", b"\xff\xfe"])
def test_what_is_no_mail_is_unreadable(octets: bytes) -> None:
    assert read_report(octets).kind is ReportKind.UNREADABLE
