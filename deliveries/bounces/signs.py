"""Signs by which a bounce without fields is told from ordinary mail, and a delay notice or a receipt from a failure."""

from __future__ import annotations

import re
from collections.abc import Container

from deliveries.bounces.finding import REPLY_CODE, addresses, enhanced_codes
from deliveries.bounces.mail import Mail
from deliveries.bounces.prose import Prose
from deliveries.bounces.wordings import wordings
from deliveries.smtp.rules import fold

#: what people and lists put before a subject that they pass on
_PASSED_ON = re.compile(r"\s{0,4}(\[|(fwd?|wg|tr|rv|vs|vb|vl|enc|i|doorst|pd|转发|轉寄|転送|пересл) ?[:：])", re.I)
#: … or answer: then the bounce's own subject follows at once, as in no answer that a mail system writes under ours
_ANSWERED = re.compile(r"\s{0,4}(re|aw|sv|antw?|odp|回复|答复|回覆) ?[:：]", re.I)
_AT_ONCE_CHARS = 30
#: RFC 7489 §7.2.1.1, RFC 8460 §5.3: reports about our mail that postmasters send, no bounces
_AGGREGATE = re.compile(r"\s{0,4}report domain: ?\S{1,255} +submitter:", re.I)
_TEXT_CHARS = 8_000
#: what follows a code that is none
_NUMBER = re.compile(r"[-\s]\d{2,4}(?:[-\s]|$)")


def from_daemon(mail: Mail) -> bool:
    """Whether a mail system signs as the sender."""
    sender = fold(mail.headers.decoded("from"))
    return any(name in sender for name in wordings().daemon_names)


def marked(mail: Mail) -> bool:
    """Whether a field that only bounces bear calls it one: RFC 3464 §2 (report-type), Exim's and Gmail's own."""
    return "x-failed-recipients" in mail.headers or mail.report_type == "delivery-status"


def looks_like_bounce(mail: Mail, prose: Prose) -> bool:
    """Whether a mail comes from a mail system and speaks of a failure: two signs of six, or one that is certain."""
    headers = mail.headers
    if marked(mail):
        return True
    subject = headers.decoded("subject")
    if _AGGREGATE.match(subject):
        return False
    null_path, daemon, told = _null_path(mail), from_daemon(mail), _told(mail)
    text = fold(prose.text[:_TEXT_CHARS])
    said = _any(wordings().bounce_texts, text)
    returned = bool(len(prose.returned)) and (told or said)
    # a parcel may be delayed too, and people write about bounces: words prove nothing without a mail system, or a
    # subject that tells it first hand, or passes on the fields of RFC 3464, and a mail returned or an address blamed
    first_hand = "final-recipient:" in text or not _passes_on(subject)
    blames = _blames(prose)
    # a reply, and whom it refused, not who signs: no words are needed beside it
    refused = _blames(prose, {a.lower() for a in addresses(headers.get("from"), 10)}) and _replied(prose.text)
    blamed = first_hand and told and (returned or (said and blames))
    more = (*wordings().delay_texts, *wordings().success_texts)
    if not (told or said or returned or blames or _any(more, text) or enhanced_codes(prose.text)):
        return False  # mail systems also write of quotas, quarantines and passwords
    signs = (null_path, daemon, told, said, returned, refused)
    return (daemon or blamed or (null_path and first_hand)) and sum(signs) >= 2


def reports_first_hand(mail: Mail) -> bool:
    """Whether fields of a status report in a text may be a mail system's: people quote them, in lessons too."""
    told = _told(mail) and not _passes_on(mail.headers.decoded("subject"))
    return marked(mail) or told or _null_path(mail) or from_daemon(mail)


def stands_without_address(mail: Mail, prose: Prose) -> bool:
    """Whether a bounce is one though it names nobody: it returns the mail, or a mail system says no more than that."""
    return bool(len(prose.returned)) or (from_daemon(mail) and (_null_path(mail) or _told(mail)))


def _null_path(mail: Mail) -> bool:
    if mail.reverse_path is not None:
        return not mail.reverse_path
    return mail.headers.get("return-path").replace(" ", "").lower() in ("<>", "<mailer-daemon>")


def _told(mail: Mail) -> bool:
    return titled_bounce(fold(mail.headers.decoded("subject")))


def titled_bounce(subject: str) -> bool:
    """Whether a folded subject is a bounce's: by a wording, or by delivery and failure in one."""
    words = wordings()
    return _any(words.bounce_subjects, subject) or (
        _any(words.delivery_words, subject) and _any(words.failure_words, subject)
    )


def _passes_on(subject: str) -> bool:
    """Whether a person or a list passes a bounce on, or answers it."""
    if _PASSED_ON.match(subject):
        return True
    found = _ANSWERED.match(subject)
    return found is not None and titled_bounce(fold(subject[found.end() :])[:_AT_ONCE_CHARS])


def _blames(prose: Prose, but: Container[str] = ()) -> bool:
    lines = zip(prose.lines[:60], prose.weighed, strict=False)
    return any(
        weight >= 2 and address.lower() not in but
        for line, blamed in lines
        for address, weight in blamed
        if not line.lstrip().startswith(">")
    )


def _replied(text: str) -> bool:
    """Whether a text quotes a reply: numbers alone are a telephone's, in the signature of who is away."""
    return bool(enhanced_codes(text)) or any(
        found[1] >= "4" and not _NUMBER.match(text, found.end()) for found in REPLY_CODE.finditer(text[:_TEXT_CHARS])
    )


def looks_delayed(mail: Mail, prose: Prose) -> bool:
    """Whether the text says that delivery goes on, and not that it ended."""
    text, words = _subject_and_text(mail, prose), wordings()
    return _any(words.delay_texts, text) and not _any(words.final_texts, text)


def looks_delivered(mail: Mail, prose: Prose) -> bool:
    """Whether the text says that the mail arrived or was handed on, and of nobody that it did not."""
    text, words = _subject_and_text(mail, prose), wordings()
    return _any(words.success_texts, text) and not _any(words.bounce_texts, text)


def _subject_and_text(mail: Mail, prose: Prose) -> str:
    return fold(f"{mail.headers.decoded('subject')} {prose.text[:_TEXT_CHARS]}")


def _any(phrases: tuple[str, ...], text: str) -> bool:
    return any(phrase in text for phrase in phrases)
