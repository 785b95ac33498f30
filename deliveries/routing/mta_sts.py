"""MTA-STS: a domain's promise that its MX hosts speak TLS with valid certificates (RFC 8461).

    sts = MtaSts(resolver, store)
    policy = await sts.policy("example.org")     None = the domain asks for nothing
    policy.allows("mx1.example.org")             §4.1: only such hosts may be tried while `mode` is enforce

The TXT record only says that there is a policy and which one; the policy itself comes over HTTPS. Once cached, it
holds until `max_age` whatever DNS says (§3.1): an attacker who can hide the record cannot hide the policy.
What went wrong with it is kept in `failures`, for reports (`tls_rpt`).
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Protocol

from deliveries.errors import AddressRefused, FetchFailed
from deliveries.fetch import Fetched, fetch
from deliveries.routing.resolver import Answer, Resolver, Trouble, addresses
from deliveries.smtp.outcome import TlsFailure, TlsResult

#: §3.3: a policy may take a minute to come …
FETCH_TIMEOUT_S = 60.0
#: … and is refused above 64 KB
MAX_POLICY_OCTETS = 65_536
#: §3.2: a policy never binds for longer than a year
MAX_AGE_S = 31_557_600
#: §3.3: after a failed fetch, senders wait five minutes or longer
RETRY_FETCH_S = 300.0
#: §10.2: refreshed daily while it is used, so that it does not run out just when HTTPS is blocked
REFRESH_S = 86_400.0
#: domains remembered as failing to serve their policy
MAX_FAILURES = 10_000

_VERSION = "STSv1"
_DELIMITER = r"[ \t]*;[ \t]*"
_FIELD = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}=[\x21-\x3a\x3c\x3e-\x7e]+"
_RECORD = re.compile(rf"v=STSv1(?P<fields>({_DELIMITER}{_FIELD})+)({_DELIMITER})?[ \t]*\Z")
_ID = re.compile(r"id=(?P<id>[A-Za-z0-9]{1,32})\Z")
_LINE = re.compile(r"(?P<key>[A-Za-z0-9][A-Za-z0-9_.-]{0,31}):(?P<value>[^\x00-\x08\x0a-\x1f\x7f]*)\Z")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_PATTERN = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*\.?\Z")
_TEXT_PLAIN = re.compile(r"text/plain[ \t]*(;|\Z)", re.IGNORECASE)


class Mode(StrEnum):
    """§5: what follows where a host does not keep the promise."""

    ENFORCE = "enforce"  #: the mail waits
    TESTING = "testing"  #: it goes out anyway, and is told of in reports
    NONE = "none"  #: the domain takes its promise back


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as published; `mx` are patterns in lower case, empty only with Mode.NONE."""

    mode: Mode
    mx: tuple[str, ...]
    max_age_s: int

    def allows(self, host: str) -> bool:
        return any(mx_matches(pattern, host) for pattern in self.mx)


@dataclass(frozen=True, slots=True)
class Stored:
    """A cached policy: the `id` of the TXT record it came with, and when, in seconds since the epoch."""

    id: str
    policy: Policy
    fetched_at: float

    @property
    def expires_at(self) -> float:
        return self.fetched_at + self.policy.max_age_s


class PolicyStore(Protocol):
    """Where policies are kept across restarts; both may be slow, neither may fail for a domain that is unknown."""

    async def get(self, domain: str) -> Stored | None: ...

    async def put(self, domain: str, stored: Stored) -> None: ...


class MemoryStore:
    """A store that forgets at the end of the process; the oldest beyond `size` go first."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._kept: OrderedDict[str, Stored] = OrderedDict()

    async def get(self, domain: str) -> Stored | None:
        return self._kept.get(domain)

    async def put(self, domain: str, stored: Stored) -> None:
        self._kept[domain] = stored
        self._kept.move_to_end(domain)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)


# --- the two texts ------------------------------------------------------------------------------------------------


def parse_record(text: str) -> str | None:
    """§3.1: the id of a `v=STSv1; id=…` record; None where it is malformed."""
    found = _RECORD.match(text)
    if found is None:
        return None
    fields = re.split(_DELIMITER, found["fields"])[1:]
    ids = [m["id"] for field in fields if (m := _ID.match(field))]
    return ids[0] if ids else None


def record_id(records: Iterable[str]) -> str | None:
    """§3.1: the id where exactly one TXT record begins with the version; otherwise there is no policy."""
    ours = [text for text in records if re.match(r"v=STSv1[ \t]*;", text)]
    return parse_record(ours[0]) if len(ours) == 1 else None


def parse_policy(text: str) -> Policy:
    """§3.2: the policy file; ValueError says what is wrong with it."""
    fields: dict[str, str] = {}
    patterns: list[str] = []
    for line in re.split(r"\r?\n", text.removesuffix("\n").removesuffix("\r")):
        found = _LINE.match(line)
        # stripped here and not by the pattern: one that looks for the last blank takes n² steps on a line of blanks
        value = found["value"].strip(" \t") if found else ""
        if not found or not value or "\t" in value:
            raise ValueError(f"the line {line[:80]!r} is no `key: value`")
        if found["key"] == "mx":
            if not _PATTERN.match(value):
                raise ValueError(f"mx {value[:80]!r} is no host name or `*.` name")
            patterns.append(value.lower().rstrip("."))
        else:
            fields.setdefault(found["key"], value)  # §3.2: of doubles, the first counts
    if fields.get("version") != _VERSION:
        raise ValueError("version is not STSv1")
    if fields.get("mode") not in set(Mode):
        raise ValueError("mode is not enforce, testing or none")
    mode = Mode(fields["mode"])
    age = fields.get("max_age", "")
    if not re.fullmatch(r"[0-9]{1,10}", age):
        raise ValueError("max_age is no number of seconds")
    if not patterns and mode is not Mode.NONE:
        raise ValueError("no mx is named")
    return Policy(mode, tuple(patterns), min(int(age), MAX_AGE_S))


def mx_matches(pattern: str, host: str) -> bool:
    """§4.1: `*.` stands for exactly one label."""
    pattern, host = pattern.lower().rstrip("."), host.lower().rstrip(".")
    return host.partition(".")[2] == pattern[2:] if pattern.startswith("*.") else host == pattern


def is_text_plain(content_type: str) -> bool:
    """§3.2: the media type that a policy must have; parameters do not matter."""
    return bool(_TEXT_PLAIN.match(content_type.strip()))


# --- look-up ------------------------------------------------------------------------------------------------------


class MtaSts:
    """Finds, fetches and keeps policies; belongs to one event loop.

    `port`, `ca_file` and `allow_private` are for labs (443, the system's authorities, public addresses only).
    `clock` gives seconds since the epoch, because policies outlive the process.
    """

    def __init__(
        self,
        resolver: Resolver,
        store: PolicyStore | None = None,
        *,
        port: int = 443,
        ca_file: str | None = None,
        allow_private: bool = False,
        timeout_s: float = FETCH_TIMEOUT_S,
        clock: Callable[[], float] = time.time,
        get: Callable[..., Awaitable[Fetched]] = fetch,
    ) -> None:
        self._resolver = resolver
        self._store: PolicyStore = store or MemoryStore()
        self._port = port
        self._ca_file = ca_file
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._clock = clock
        self._get = get
        self._failed: OrderedDict[str, tuple[str, float]] = OrderedDict()  # domain → (id, not before)
        self._asking: dict[str, asyncio.Task[Policy | None]] = {}
        #: why the last fetch for a domain failed; the oldest are forgotten
        self.failures: OrderedDict[str, TlsFailure] = OrderedDict()

    async def policy(self, domain: str) -> Policy | None:
        """The policy in force for `domain` (lower-case A-label), never raises; None also for mode none."""
        task = self._asking.get(domain)
        if task is None:
            task = self._asking[domain] = asyncio.create_task(self._policy(domain))
            task.add_done_callback(lambda _: self._asking.pop(domain, None))
        policy = await asyncio.shield(task)
        return policy if policy is not None and policy.mode is not Mode.NONE else None

    async def _policy(self, domain: str) -> Policy | None:
        stored = await self._store.get(domain)
        now = self._clock()
        if stored is not None and stored.expires_at <= now:
            stored = None
        kept = stored.policy if stored is not None else None
        txt = await self._resolver.txt(f"_mta-sts.{domain}")
        current = record_id(txt.records) if isinstance(txt, Answer) else None
        if current is None:
            if not isinstance(txt, Trouble):
                self.failures.pop(domain, None)
            return kept  # §3.1: no record, or DNS is lost: what is cached still binds
        if stored is not None and stored.id == current and now < stored.fetched_at + REFRESH_S:
            return kept
        failed_id, not_before = self._failed.get(domain, ("", 0.0))
        if failed_id == current and now < not_before:
            return kept
        try:
            fresh = await self._fetch(domain)
        except (FetchFailed, AddressRefused) as e:
            untrusted = isinstance(e.__cause__, ssl.SSLCertVerificationError)
            self._remember_failure(domain, current, TlsResult.POLICY_HOST if untrusted else TlsResult.NO_POLICY, str(e))
            return kept
        except ValueError as e:
            self._remember_failure(domain, current, TlsResult.BAD_POLICY, str(e))
            return kept
        self._failed.pop(domain, None)
        self.failures.pop(domain, None)
        await self._store.put(domain, Stored(current, fresh, now))
        return fresh

    async def _fetch(self, domain: str) -> Policy:
        host = f"mta-sts.{domain}"
        authority = host if self._port == 443 else f"{host}:{self._port}"
        fetched = await self._get(
            "GET",
            f"https://{authority}/.well-known/mta-sts.txt",
            timeout_s=self._timeout_s,
            max_octets=MAX_POLICY_OCTETS,
            allow_private=self._allow_private,
            ca_file=self._ca_file,
            resolve=partial(addresses, self._resolver),
        )
        # §3.3: 200 and nothing else; a redirect is a failure
        if fetched.status != 200:
            raise ValueError(f"{host} answers {fetched.status}")
        if fetched.truncated:
            raise ValueError(f"{host}: the policy is longer than {MAX_POLICY_OCTETS} octets")
        if not is_text_plain(fetched.header("content-type")):
            raise ValueError(f"{host}: the policy is {fetched.header('content-type')[:80]!r}, not text/plain")
        try:
            return parse_policy(fetched.body.decode("utf-8"))
        except UnicodeDecodeError:
            raise ValueError(f"{host}: the policy is not UTF-8") from None

    def _remember_failure(self, domain: str, policy_id: str, result: TlsResult, why: str) -> None:
        self._failed[domain] = (policy_id, self._clock() + RETRY_FETCH_S)
        self.failures[domain] = TlsFailure(result, why[:300])
        for memory in (self._failed, self.failures):
            while len(memory) > MAX_FAILURES:
                memory.popitem(last=False)
