"""What composing and signing one mail costs, beside the standard library and dkimpy, in one run.

    .venv/bin/python -m benchmarks.compose

Absolute figures belong to the machine; the ratios carry over. Each figure is the median of several rounds.
"""

from __future__ import annotations

import email.policy
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import dkim as dkimpy

from deliveries.mime import dkim
from deliveries.mime.address import parse_address
from deliveries.mime.compose import Attachment, Mail, compose
from deliveries.mime.deliverable import finish, prepare
from deliveries.mime.verp import Keys, mint, read

ROW = '<tr><td style="padding: 4px">Item {n}</td><td align="right">{n}.00 €</td></tr>\n'
HTML = (
    "<html><body>\n<h1>Your receipt</h1>\n<table>\n"
    + "".join(ROW.format(n=n) for n in range(45))
    + "</table></body></html>\n"
)
TEXT = "Your receipt\n\n" + "".join(f"Item {n}: {n}.00 EUR\n" for n in range(45))
MAIL = Mail(
    id=uuid.UUID("019aa000-0000-7000-8000-0123456789ab"),
    message_id="019aa000@mail.example.com",
    date=datetime(2026, 11, 3, 9, 5, 7, tzinfo=UTC),
    from_header="Acme Receipts <receipts@example.com>",
    to=("Jane Doe <jane@example.org>",),
    cc=(),
    reply_to=("help@example.com",),
    subject="Your receipt for order 12345",
    html=HTML,
    text=TEXT,
    headers=(("X-Entity-Ref-ID", "12345"),),
    attachments=(),
)


def by_email_message() -> bytes:
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"] = MAIL.from_header
    message["To"] = ", ".join(MAIL.to)
    message["Reply-To"] = ", ".join(MAIL.reply_to)
    message["Subject"] = MAIL.subject
    message["Date"] = MAIL.date
    message["Message-ID"] = f"<{MAIL.message_id}>"
    for name, value in MAIL.headers:
        message[name] = value
    message.set_content(TEXT)
    message.add_alternative(HTML, subtype="html")
    return message.as_bytes()


def median_us(work: Callable[[], object], number: int, rounds: int = 7) -> float:
    """Microseconds per call: the median over the rounds of the mean within a round."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(number):
            work()
        times.append((time.perf_counter() - start) / number)
    return statistics.median(times) * 1e6


def main() -> None:
    private_pem, _ = dkim.generate_key()
    signer = dkim.Signer("example.com", "mail1", private_pem)
    second = dkim.Signer("example.com", "mail2", dkim.generate_key(dkim.KeyType.ED25519)[0])
    both = dkim.Signer("example.com", "mail1", private_pem, second)
    keys = Keys({1: b"k" * 32})
    delivery, now = uuid.uuid4(), datetime.now(UTC)
    token = mint(keys, delivery, now + timedelta(days=30))
    composed = compose(MAIL)
    prepared = prepare(composed)
    unsigned = finish(prepared, token, None, 0)
    names = [b"from", b"to", b"subject", b"date", b"message-id", b"reply-to", b"mime-version", b"content-type"]
    big = replace(MAIL, attachments=(Attachment("a.pdf", "application/pdf", bytes(1_000_000)),))

    def sign_by_dkimpy() -> bytes:
        return bytes(
            dkimpy.sign(
                unsigned,
                b"mail1",
                b"example.com",
                private_pem,
                canonicalize=(b"relaxed", b"relaxed"),
                include_headers=names,
            )
        )

    ours = median_us(lambda: compose(MAIL), 2_000)
    theirs = median_us(by_email_message, 50)
    sign = median_us(lambda: finish(prepared, token, signer, 1_700_000_000), 200)
    sign_both = median_us(lambda: finish(prepared, token, both, 1_700_000_000), 200)
    whole = median_us(lambda: finish(compose(MAIL), token, signer, 1_700_000_000), 200)
    dkimpy_sign = median_us(sign_by_dkimpy, 10)
    print(f"mail: {composed.size_octets} octets, text and html ({len(HTML)} characters)")
    print(f"compose                     {ours:10.1f} µs")
    print(f"  email.message             {theirs:10.1f} µs   {theirs / ours:6.1f} times as long")
    print(f"prepare (hash, canonical)   {median_us(lambda: prepare(composed), 2_000):10.1f} µs   once per message")
    print(f"finish, signed RSA-2048     {sign:10.1f} µs   once per delivery")
    print(f"  and by Ed25519            {sign_both:10.1f} µs")
    print(f"  dkimpy.sign               {dkimpy_sign:10.1f} µs   {dkimpy_sign / sign:6.1f} times as long")
    print(f"compose, prepare, finish    {whole:10.1f} µs")
    print(f"compose with 1 MB attached  {median_us(lambda: compose(big), 5):10.1f} µs")
    print(f"prepare with 1 MB attached  {median_us(lambda: prepare(compose(big)), 5):10.1f} µs   compose counted in")
    print(f"parse_address               {median_us(lambda: parse_address(MAIL.to[0]), 5_000):10.1f} µs")
    print(f"mint a token                {median_us(lambda: mint(keys, delivery, now), 2_000):10.1f} µs")
    print(f"read a token                {median_us(lambda: read(keys, token, now), 2_000):10.1f} µs")


if __name__ == "__main__":
    main()
