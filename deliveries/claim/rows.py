"""Rows: due deliveries of the destinations that have places are leased, tenants in turn, in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings

from deliveries.claim.places import Want
from deliveries.models.sql import execute
from deliveries.states import Lane

#: tenants served from one destination in one claim, the longest waiting first
_TENANTS = 64
#: whose turn it was last, by lane and destination: tenants go round, in each process for itself
_turns: dict[tuple[int, str], UUID] = {}
_REMEMBERED = 20_000
_FIRST = ALL = UUID(int=0)
ANY_KIND = -1


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is ours until the lease ends. `proven`: its site was known to answer."""

    delivery_id: UUID
    lane: Lane
    destination: str
    size: int
    proven: bool = True
    tenant_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Takes:
    """Whose mail this host leaves to others: the rules of IP pools, and whether it sends by each (deliveries.sources).

    A tenant of ALL is every tenant; kinds are 0 (transactional), 1 (bulk) or ANY_KIND. What no rule names is taken.
    """

    tenants: tuple[UUID, ...] = ()
    kinds: tuple[int, ...] = ()
    goes: tuple[bool, ...] = ()


def take(lease_id: UUID, octets: int, wants: Sequence[Want], takes: Takes | None) -> tuple[list[Claimed], bool]:
    """What is ours now, and whether there were more tenants than one claim looks at."""
    if len(_turns) > _REMEMBERED:
        _turns.clear()
    rules = {"tenants_ruled": [*takes.tenants], "kinds_ruled": [*takes.kinds], "goes": [*takes.goes]} if takes else {}
    found = execute(
        _CLAIM_SOME if takes else _CLAIM,
        rules
        | {
            "lanes": [c.lane for c, _ in wants],
            "names": [c.name for c, _ in wants],
            "counts": [count for _, count in wants],
            "after": [_turns.get((c.lane, c.name), _FIRST) for c, _ in wants],
            "tenants": _TENANTS,
            "octets": octets,
            "lease_id": lease_id,
            "lease_s": settings.LEASE_S,
        },
    )
    proven = {c.name: c.proven for c, _ in wants}
    rows, passed = [], False
    for row in found:
        lane, name = row["lane"], row["name"]
        _turns[lane, name] = row["tenant_id"]
        if row["delivery_id"] is None:
            passed = True
        else:
            rows.append(Claimed(row["delivery_id"], Lane(lane), name, row["size"], proven[name], row["tenant_id"]))
    return rows, passed


_OF_TENANT = """
SELECT q.tenant_id, q.due_at FROM queued q
 WHERE q.lane = {at}.lane AND q.destination = {at}.name AND q.lease_id IS NULL {after}
 ORDER BY q.tenant_id, q.due_at LIMIT 1
"""

# the next tenant, or the first one again
_NEXT_TENANT = f"""
CROSS JOIN LATERAL (
    ({_OF_TENANT.format(at="{at}", after="AND q.tenant_id > {at}.{column}")}) UNION ALL
    ({_OF_TENANT.format(at="{at}", after="")}) LIMIT 1) f
"""

# the nearest rule of an IP pool; what none names is taken
_GOES = f"""
coalesce((SELECT r.goes
            FROM unnest(%(tenants_ruled)s::uuid[], %(kinds_ruled)s::int[], %(goes)s::bool[]) AS r(tenant, kind, goes)
           WHERE r.tenant IN (f.tenant_id, '{ALL}') AND r.kind IN ({ANY_KIND}, ({{at}}.lane = {Lane.BULK.value})::int)
           ORDER BY r.tenant = '{ALL}', r.kind = {ANY_KIND} LIMIT 1), true)
"""


# tenants by a loose index scan (one probe each), going round from whose turn it was last; then due rows of each,
# evenly: the first of everybody, the second of everybody … until the places are filled
def _claim_statement(goes: str) -> str:
    return f"""
WITH RECURSIVE quick AS MATERIALIZED (
    -- what a crash takes back was not started: the ledger's commit, which waits for the disk, comes after this one
    SELECT set_config('synchronous_commit', 'off', true) AS set
), want AS (
    SELECT w.* FROM quick, unnest(%(lanes)s::smallint[], %(names)s::text[], %(counts)s::int[], %(after)s::uuid[])
               AS w(lane, name, places, after)
     WHERE quick.set = 'off'
), visited AS (
    SELECT w.lane, w.name, w.places, 1 AS n, f.tenant_id, f.due_at, f.tenant_id AS origin,
           (f.due_at <= now() AND {goes.format(at="w")})::int AS due, {goes.format(at="w")} AS goes
      FROM want w {_NEXT_TENANT.format(at="w", column="after")}
    UNION ALL
    SELECT v.lane, v.name, v.places, v.n + 1, f.tenant_id, f.due_at, v.origin,
           v.due + (f.due_at <= now() AND {goes.format(at="v")})::int, {goes.format(at="v")}
      FROM visited v {_NEXT_TENANT.format(at="v", column="tenant_id")}
     -- as many that are due as there are places: more would only be locked and left
     WHERE v.n < %(tenants)s AND v.due < v.places AND f.tenant_id <> v.origin
), share AS (
    SELECT v.lane, v.name, v.tenant_id, v.n, v.places,
           ceil(v.places::numeric / count(*) OVER (PARTITION BY v.lane, v.name)) AS rows
      FROM visited v WHERE v.due_at <= now() AND v.goes
), locked AS (
    SELECT q.*, s.places, s.n FROM share s CROSS JOIN LATERAL (
        SELECT q.delivery_id, q.lane, q.destination, q.tenant_id, q.size, q.due_at FROM queued q
         WHERE q.lane = s.lane AND q.destination = s.name AND q.tenant_id = s.tenant_id AND q.lease_id IS NULL
           AND q.due_at <= now()
         ORDER BY q.due_at LIMIT s.rows
           FOR UPDATE SKIP LOCKED) q
), ranked AS (
    SELECT l.*, row_number() OVER (PARTITION BY lane, destination, tenant_id ORDER BY due_at) AS rank FROM locked l
), numbered AS (
    SELECT r.*, row_number() OVER (PARTITION BY lane, destination ORDER BY rank, n) AS place FROM ranked r
), fitting AS (
    SELECT n.*, sum(size) OVER (ORDER BY lane, place, destination ROWS UNBOUNDED PRECEDING) - size AS octets_before
      FROM numbered n WHERE place <= places
), taken AS (
    -- as an array: the planner cannot know how few rows these are, and would read the whole table for a join
    UPDATE queued q
       SET lease_id = %(lease_id)s, leased_until = now() + make_interval(secs => %(lease_s)s), started_at = NULL
     WHERE q.delivery_id = ANY (ARRAY(SELECT f.delivery_id FROM fitting f WHERE f.octets_before < %(octets)s))
    RETURNING q.delivery_id
), passed AS (
    -- more tenants than one claim looks at: the next one goes on behind them
    SELECT NULL::uuid, v.lane, v.name, 0, v.tenant_id, 0 AS place FROM visited v WHERE v.n = %(tenants)s
)
SELECT t.delivery_id, t.lane, t.name, t.size, t.tenant_id
  FROM (SELECT * FROM passed
         UNION ALL
        SELECT f.delivery_id, f.lane, f.destination, f.size, f.tenant_id, f.place
          FROM fitting f WHERE f.delivery_id IN (SELECT delivery_id FROM taken)
       ) AS t(delivery_id, lane, name, size, tenant_id, place)
 ORDER BY t.place
"""


_CLAIM, _CLAIM_SOME = _claim_statement("true"), _claim_statement(_GOES)
