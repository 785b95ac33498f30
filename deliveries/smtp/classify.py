"""From an outcome or a peer's text to what it means: Verdict for the session, Classified for DSN texts.

Rules are data (smtp.rules), tried in file order; the first that fits says category, whether the address is dead, and
whether the provider asks for less mail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from deliveries.smtp.outcome import Broken, Outcome, Replied, Stage, Unable, Unanswered, Verdict
from deliveries.smtp.reply import Reply, clean, parse_enhanced
from deliveries.smtp.rules import HEAD_CHARS, normalise, rules
from deliveries.states import SUPPRESSING, Category, Status

#: RFC 5321 §3.1, §3.2: what is refused here is us or our session, before any recipient was named
ABOUT_US = frozenset({Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH, Stage.MAIL})

#: RFC 4954 §4.7, §6: authentication wanted, refused, too weak, or encryption needed first: never the recipient
AUTH_CODES = frozenset({530, 534, 535, 538})

#: no rule knows the words
NO_RULE = "no-rule"

#: what 552 at RCPT may mean when 452 is meant
_AS_452 = frozenset({Category.UNKNOWN, Category.MAILBOX_FULL, Category.RATE_LIMITED, Category.NETWORK})

#: what an unknown wording means at a stage where only we can be meant
_CATEGORY_OF_STAGE = {
    Stage.CONNECT: Category.NETWORK,
    Stage.GREETING: Category.IP_REPUTATION,
    Stage.EHLO: Category.PROTOCOL,
    Stage.STARTTLS: Category.TLS,
    Stage.AUTH: Category.POLICY_AUTH,
    Stage.MAIL: Category.POLICY_AUTH,
    Stage.RCPT: Category.POLICY_AUTH,
    Stage.DATA: Category.POLICY_AUTH,
    Stage.BODY: Category.POLICY_AUTH,
    Stage.DOT: Category.POLICY_AUTH,
}


@dataclass(frozen=True, slots=True)
class Classified:
    """What a text means. `permanent` is None where neither code nor wording says."""

    category: Category
    #: the address is dead. For BAD_DOMAIN it still needs a second sight ≥ 24 h later, decided by the caller
    suppress: bool
    rule: str
    permanent: bool | None
    slow_down: bool = False
    ours: bool = False  #: our account at a relay is meant


def classify_text(
    text: str, code: int | None = None, enhanced: str | None = None, stage: Stage | None = None
) -> Classified:
    """What a refusal says, from its words first, then its codes. Codes not given are read from the text."""
    if code is None and enhanced is None:
        code, enhanced = read_codes(text)
    elif enhanced is None:
        enhanced = read_codes(text)[1]
    enhanced = enhanced or ""
    return _judge(normalise(text), code, enhanced, stage)


@lru_cache(maxsize=512)  # the same refusal comes by the thousand; ≤ 512 × 4 KB
def _judge(flat: str, code: int | None, enhanced: str, stage: Stage | None) -> Classified:
    stage = stage or stage_of(flat)
    permanent = _permanent(code, enhanced)
    for rule in rules():
        if rule.fits(flat, code, enhanced, stage):
            final = permanent if rule.permanent is None else rule.permanent
            # RFC 5321 §4.2.1: a 4xx may succeed later; no address dies of one
            dead = rule.suppress and final is not False
            return Classified(rule.category, dead, rule.id, final, rule.slow_down, rule.ours)
    return Classified(Category.UNKNOWN, False, NO_RULE, permanent)


#: words by which MTAs tell the stage of a remote refusal, longest first
_STAGES = (
    ("after end of data", Stage.DOT),
    ("in reply to end of data", Stage.DOT),
    ("end of data", Stage.DOT),
    ("after i sent the message", Stage.DOT),
    ("<<< 503", Stage.RCPT),  # sendmail, pipelined: DATA was refused because RCPT had been
    ("in reply to data", Stage.DATA),
    ("after data", Stage.DATA),
    (">>> data", Stage.DATA),
    ("following data command", Stage.DATA),
    ("in reply to rcpt", Stage.RCPT),
    (">>> rcpt", Stage.RCPT),
    ("sent <<< rcpt", Stage.RCPT),
    ("rcpt to response", Stage.RCPT),
    ("rcpt to:<@> 5", Stage.RCPT),  # a transcript that marks no side
    ("rcpt to: <@> 5", Stage.RCPT),
    ("rcpt to:<@> remote server replied", Stage.RCPT),
    ("after rcpt", Stage.RCPT),
    ("does not like recipient", Stage.RCPT),
    ("did not like our rcpt", Stage.RCPT),
    ("following rcpt command", Stage.RCPT),
    ("in reply to mail", Stage.MAIL),
    ("after mail from", Stage.MAIL),
    ("did not like our mail", Stage.MAIL),
    ("does not like my sender", Stage.MAIL),
    ("following mail", Stage.MAIL),
    ("after initial connection", Stage.GREETING),
    ("refused to talk to me", Stage.GREETING),
    ("in reply to ehlo", Stage.EHLO),
    ("in reply to helo", Stage.EHLO),
    ("after helo", Stage.EHLO),
    ("after ehlo", Stage.EHLO),
)


def stage_of(flat: str) -> Stage | None:
    """The stage that a relay's own words name in a normalised text; None where they name none."""
    return next((stage for words, stage in _STAGES if words in flat), None)


def read_codes(text: str) -> tuple[int | None, str]:
    """The reply code and enhanced code that a text begins with; (None, "") where it does not."""
    head = text[:HEAD_CHARS].lstrip()
    code = None
    if head[:3].isascii() and head[:3].isdigit() and "200" <= head[:3] <= "599" and not head[3:4].isalnum():
        code = int(head[:3])
        head = head[3:].lstrip(" -:#")
    found = parse_enhanced(head)
    return code, str(found) if found else ""


def _permanent(code: int | None, enhanced: str) -> bool | None:
    if code is not None and code // 100 in (4, 5):
        return code // 100 == 5
    if enhanced[:1] in ("4", "5"):
        return enhanced[0] == "5"
    return None


def classify(outcome: Outcome, *, own_smarthost: bool = False) -> Verdict:
    """What one transaction's end means for its delivery.

    `own_smarthost`: the hop is a route of ours, so that a refusal of AUTH, MAIL or relaying, or for the limits
    of an account, is about our account there (`our_route`) and the mail stays deferred.
    """
    match outcome:
        case Replied():
            return _replied(outcome, own_smarthost)
        case Broken():
            return Verdict(Status.DEFERRED, f"broken-{outcome.cause}", outcome.cause, text=clean(outcome.text))
        case Unanswered():
            # RFC 1047: it may have been accepted; only a second, later attempt or a DSN can tell
            return Verdict(Status.UNKNOWN, "no-final-reply", Category.NETWORK, text=clean(outcome.text))
        case Unable():
            return Verdict(
                Status.BOUNCED,
                "peer-cannot",
                outcome.category,
                enhanced=str(outcome.enhanced),
                text=clean(outcome.text),
            )


def _replied(outcome: Replied, own_smarthost: bool) -> Verdict:
    reply, stage = outcome.reply, outcome.stage
    enhanced = str(reply.enhanced or "")
    if reply.positive and stage is Stage.DOT:
        return Verdict(Status.DELIVERED, "accepted", enhanced=enhanced, code=reply.code, text=reply.text)
    if not (reply.transient or reply.permanent):
        # RFC 5321 §4.3.2: no such reply is lawful here. After the dot it may still have been an acceptance
        status = Status.UNKNOWN if stage is Stage.DOT else Status.DEFERRED
        return Verdict(status, "unlawful-reply", Category.PROTOCOL, enhanced=enhanced, code=reply.code, text=reply.text)

    said = classify_text(_words(reply), reply.code, enhanced, stage)
    # a rule may know better than the code: 5xx with "greylisted, come back" is no refusal of the mail
    status = Status.BOUNCED if reply.permanent and said.permanent is not False else Status.DEFERRED
    suppress, category, rule, our_route = said.suppress, said.category, said.rule, False
    if (told := parse_enhanced(reply.lines[0] if reply.lines else "")) and told.klass != reply.code // 100:
        suppress = False  # `550 4.1.1`: one of the two says that it passes, and an address is not killed on that
    if reply.code == 552 and stage is Stage.RCPT and category in _AS_452:
        # RFC 5321 §4.5.3.1.10: some servers say 552 where 452 is meant
        status = Status.DEFERRED
    if stage in ABOUT_US or reply.code in AUTH_CODES:
        suppress = False
        if category in SUPPRESSING:
            category, rule = Category.POLICY_AUTH, f"{rule}-at-{stage}"
        if category is Category.UNKNOWN:
            category = _CATEGORY_OF_STAGE[stage]
        if stage in (Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH):
            # refused before the mail was named: another MX or hour may differ, and age ends it (RFC 5321 §3.1)
            status = Status.DEFERRED
    if own_smarthost and reply.permanent:
        our_route = stage in ABOUT_US or category is Category.RELAY_DENIED or said.ours
        if our_route or said.slow_down:
            status, suppress = Status.DEFERRED, False
    return Verdict(
        status,
        rule,
        category,
        # BAD_DOMAIN waits for its second sight, which the writer of outcomes decides
        suppress and status is Status.BOUNCED and category is not Category.BAD_DOMAIN,
        enhanced,
        reply.code,
        reply.text,
        said.slow_down,
        our_route,
    )


def _words(reply: Reply) -> str:
    """The reply as one text, without the enhanced code that servers repeat on every line.

    The lines may have been joined already, as an attempt keeps them. An enhanced code behind a reply code ("550 5.1.1")
    is left in: it belongs to a reply of another server that this one quotes.
    """
    text = " ".join(filter(None, (line.strip() for line in reply.lines)))
    if not reply.enhanced:
        return text
    return re.sub(rf"(?<!\d )\b{re.escape(str(reply.enhanced))}(?:\s+|$)", "", text)
