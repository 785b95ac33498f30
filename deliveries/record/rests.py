"""An address of ours that a receiver distrusts rests there: others of its pool carry the mail, or it waits.

Block lists and reputation are of an address, not of a mail: what is sent on is refused as well, is lost where the
refusal is permanent, and makes it worse. After REFUSALS in a row with nothing taken in between, the address rests for
that receiver for FIRST_S, twice as long each time that it begins again within FORGOTTEN. The operator is told
(deliveries.alerts) and may end it. Only for addresses that are ours to choose (SOURCE_IPS).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from deliveries.models.sql import execute
from deliveries.record.settle import Result
from deliveries.smtp.classify import NO_RULE
from deliveries.smtp.outcome import Verdict
from deliveries.smtp.reply import clean
from deliveries.states import Category, Status

log = logging.getLogger(__name__)

REFUSALS = 5
FIRST_S, LONGEST_S = 3_600, 86_400
FORGOTTEN = "24 hours"
_MAX_WHY = 300
_REMEMBERED = 10_000
#: refusals in a row of an address at a site, as this process sees them
_in_a_row: dict[tuple[str, str], int] = {}


def learn(results: Sequence[Result]) -> None:
    """Begin the rests that these rounds call for, in the caller's transaction."""
    tired: dict[tuple[str, str], str] = {}
    for tried in (t for result in results for t in result.tries):
        key = (tried.attempted.hop.source or "", tried.attempted.hop.site)
        if not all(key):
            continue
        if tried.verdict.status is Status.DELIVERED:
            _in_a_row.pop(key, None)
            tired.pop(key, None)
        elif _distrusts(tried.verdict):
            _in_a_row[key] = _in_a_row.get(key, 0) + 1
            if _in_a_row[key] >= REFUSALS:
                tired[key] = clean(tried.verdict.text)[:_MAX_WHY]
    if len(_in_a_row) > _REMEMBERED:
        _in_a_row.clear()
    if not tired:
        return
    keys = sorted(tired)
    rows = execute(_REST, {
        "addresses": [address for address, _ in keys], "sites": [site for _, site in keys],
        "whys": [tired[key] for key in keys], "first": FIRST_S, "longest": LONGEST_S,
    }).fetchall()  # fmt: skip
    for key in keys:
        _in_a_row.pop(key, None)
    for row in rows:
        ids = {"event": "source.rests", "site": row["site"]}
        log.warning("%s rests for %s until %s: %s", row["address"], row["site"], row["until"], row["why"], extra=ids)


def _distrusts(verdict: Verdict) -> bool:
    """By a rule's word: what a greeting without known words means is a guess."""
    return verdict.category is Category.IP_REPUTATION and verdict.rule != NO_RULE and not verdict.our_route


# what was under way when it began changes nothing
_REST = f"""
INSERT INTO source_rest AS s (address, site, why, strikes, since, until)
SELECT r.address, r.site, r.why, 1, now(), now() + make_interval(secs => %(first)s)
  FROM unnest(%(addresses)s::text[], %(sites)s::text[], %(whys)s::text[]) AS r(address, site, why)
 ORDER BY r.address, r.site
ON CONFLICT (address, site) DO UPDATE
   SET why = EXCLUDED.why, since = now(),
       strikes = CASE WHEN s.until > now() - interval '{FORGOTTEN}' THEN least(s.strikes + 1, 20) ELSE 1 END,
       until = now() + make_interval(secs => least(%(longest)s, %(first)s * 2 ^
           CASE WHEN s.until > now() - interval '{FORGOTTEN}' THEN least(s.strikes, 20) ELSE 0 END))
 WHERE s.until <= now()
RETURNING s.address, s.site, s.why, s.until
"""
