"""The beginning of a session: connect, greeting, EHLO, STARTTLS, AUTH (RFC 5321 §3.1, 3207, 4954).

`open_session` gives a session ready for MAIL, or the failed opening as it will stand in the Attempt table. Under
`Tls.MAY` a failed handshake is followed by a second connection in clear, within the same attempt; a hop that is
watched is asked for a good certificate first. What was wrong with the protection is told in either case.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from aiosmtplib.auth import auth_login_encode, auth_plain_encode
from aiosmtplib.esmtp import parse_esmtp_extensions

from deliveries.smtp import tls
from deliveries.smtp.connection import Garbled, Wire, WireError, connect
from deliveries.smtp.hop import Hop, Tls
from deliveries.smtp.outcome import Attempted, Broken, Outcome, Replied, Stage, TlsFacts, TlsFailure, TlsResult
from deliveries.smtp.reply import Reply, clean
from deliveries.smtp.session import Deadline, Offer, SmtpSession, Timers
from deliveries.smtp.transcript import Transcript
from deliveries.states import Category

#: RFC 5321 §3.2, §4.1.1.1: answers of a server that does not know EHLO (504: or not this form of it)
_NO_EHLO = frozenset({500, 501, 502, 504})
#: RFC 3463 §3.5: routing loop detected
_LOOP = "5.4.6 mail loops back to myself"
#: X509_V_ERR_CERT_HAS_EXPIRED
_EXPIRED = 10


@dataclass(frozen=True, slots=True)
class Manners:
    """How we present ourselves; `helo_name` is a FQDN of ours (RFC 5321 §4.1.1.1).

    A server with our own name means that the mail runs in circles. Servers on loopback are exempt unless
    `suspect_loopback`: in a lab, receiver and sender share the machine and often its name.
    """

    helo_name: str
    timers: Timers
    contexts: tls.TlsContexts
    suspect_loopback: bool = False


async def open_session(
    hop: Hop, manners: Manners, deadline: Deadline, log: Transcript | None = None
) -> SmtpSession | Attempted:
    """A session with `hop`, or how the attempt to get one ended (Broken or Replied)."""
    log = log or Transcript()
    started_at = datetime.now(UTC)
    first, *weaker = _protections(hop)
    opening = _Opening(replace(hop, tls=first), manners, deadline, log)
    failed = await opening.run()
    wrong = opening.tls_failure
    for allowed in weaker:
        if failed is None or not opening.unprotected:
            break
        # RFC 7435 §3: opportunistic means that mail goes anyway; after half a handshake only a new connection is clean
        log.note(f"new connection without {'TLS' if allowed is Tls.NONE else 'a look at the certificate'}")
        opening = _Opening(replace(hop, tls=allowed), manners, deadline, log)
        failed = await opening.run()
        wrong = wrong or opening.tls_failure
    if failed is not None:
        return Attempted(hop, failed, started_at, datetime.now(UTC), log.render(), opening.tls, tls_failure=wrong)
    assert opening.wire is not None
    return SmtpSession(
        hop,
        opening.wire,
        manners.timers,
        opening.offer,
        opened=log,
        opened_at=started_at,
        preface=opening.preface(),
        tls=opening.tls,
        tls_failure=wrong,
    )


def _protections(hop: Hop) -> tuple[Tls, ...]:
    """What is tried, the strongest first; each of the others only where the one before it failed as protection."""
    asked = (Tls.MAY, Tls.NONE) if hop.tls is Tls.MAY else (hop.tls,)
    return (Tls.VERIFY, *asked) if hop.watched and hop.tls in (Tls.MAY, Tls.MUST) else asked


class _Opening:
    def __init__(self, hop: Hop, manners: Manners, deadline: Deadline, log: Transcript) -> None:
        self.hop = hop
        self.wire: Wire | None = None
        self.offer = Offer()
        self.tls: TlsFacts | None = None
        self.tls_failure: TlsFailure | None = None
        self.unprotected = False  #: it failed for want of protection alone
        self._manners = manners
        self._name = hop.helo or manners.helo_name
        self._timers = manners.timers
        self._deadline = deadline
        self._log = log
        self._stage = Stage.CONNECT
        self._greeting: Reply | None = None

    async def run(self) -> Outcome | None:
        """None when the session stands; otherwise the connection is gone."""
        done = False
        try:
            failed = (
                await self._connect()
                or await self._greet()
                or await self._hello()
                or await self._starttls()
                or await self._authenticate()
            )
            done = failed is None
            return failed
        except WireError as error:
            self._log.note(str(error))
            if self._stage is Stage.STARTTLS:
                return self._no_tls(str(error))
            # a server whose TLS breaks at the first octets has none to speak of: opportunistic mail goes without
            self.unprotected = self.tls is not None and self._stage is Stage.EHLO
            if self.unprotected:
                self._blame(TlsResult.FAILED, str(error))
            return Broken(self._stage, error.cause, str(error))
        finally:
            if not done and self.wire is not None:
                self.wire.abort()

    def preface(self) -> str:
        """Greeting, extensions and TLS in one line, for the transcripts of later transactions."""
        greeting = self._greeting.text[:200] if self._greeting else ""
        offered = " ".join(sorted(word.upper() for word in self.offer.extensions)) or "no extensions"
        secured = f"{self.tls.version} {self.tls.cipher}" if self.tls else "no TLS"
        return f"{greeting}; {offered[:400]}; {secured}"

    # --- the steps: each gives None to go on, or how it ended --------------------------------------

    async def _connect(self) -> Outcome | None:
        hop = self.hop
        implicit = hop.tls is Tls.IMPLICIT
        via = f" from {hop.source}" if hop.source else ""
        self._log.note(f"connect to {hop.host} [{hop.address}]:{hop.port}{via}")
        timeout_s = self._deadline.left(self._timers.connect_s)
        try:
            self.wire = await connect(
                hop,
                timeout_s,
                context=self._manners.contexts.of(hop) if implicit else None,
                server_name=tls.server_name(hop) or hop.address,
            )
        except ssl.SSLError as error:
            return self._no_tls(f"TLS handshake failed: {_ssl_words(error)}", _ssl_result(error))
        except TimeoutError:
            return self._unreachable(f"no connection within {timeout_s:g} s")
        except OSError as error:
            return self._unreachable(clean(error.strerror or str(error)))
        return self._secured() if implicit else None

    async def _greet(self) -> Outcome | None:
        reply = await self._hear(Stage.GREETING, self._timers.greeting_s)
        self._greeting = reply
        if not reply.positive:
            return Replied(Stage.GREETING, reply)
        return self._loop(reply)

    async def _hello(self) -> Outcome | None:
        """EHLO, or HELO where it is not known; what an earlier EHLO said is forgotten (RFC 3207 §4.2)."""
        self.offer = Offer()
        name = self._name
        reply = await self._ask(Stage.EHLO, f"{'LHLO' if self.hop.lmtp else 'EHLO'} {name}", self._timers.hello_s)
        if reply.code in _NO_EHLO and not self.hop.lmtp:
            reply = await self._ask(Stage.EHLO, f"HELO {name}", self._timers.hello_s)
        elif reply.positive:
            # RFC 2033 §4.1: LHLO answers like EHLO. The first line is the server's name and words, no extension
            extensions, mechanisms = parse_esmtp_extensions("\n".join(reply.lines))
            self.offer = Offer(extensions, tuple(mechanisms))
        if not reply.positive:
            return self._refusal(reply)
        return self._loop(reply)

    async def _starttls(self) -> Outcome | None:
        hop = self.hop
        if hop.tls in (Tls.NONE, Tls.IMPLICIT):
            return None
        if "starttls" not in self.offer:
            # RFC 8461 §5, RFC 7672 §2.2: a stripped STARTTLS is an attack, not a reason for clear text
            return self._no_starttls("STARTTLS is not offered")
        reply = await self._ask(Stage.STARTTLS, "STARTTLS", self._timers.tls_s, forgiving=True)
        if reply.code != 220:
            no_tls = self._no_starttls(f"STARTTLS refused: {reply.text}")
            return no_tls or (Replied(Stage.STARTTLS, reply) if reply.code == 421 else None)
        assert self.wire is not None
        try:
            await self.wire.upgrade(
                self._manners.contexts.of(hop),
                tls.server_name(hop) or hop.address,
                max(self._deadline.left(self._timers.tls_s), 0.001),
            )
        except (OSError, ValueError) as error:  # ssl.SSLError and TimeoutError are OSErrors
            return self._no_tls(f"TLS handshake failed: {_ssl_words(error)}", _ssl_result(error))
        return self._secured() or await self._hello()

    async def _authenticate(self) -> Outcome | None:
        """AUTH PLAIN, else LOGIN (RFC 4954); never in clear to another machine."""
        login = self.hop.auth
        if login is None:
            return None
        self._stage = Stage.AUTH
        if self.tls is None and not _is_loopback(self.hop.address):
            return Broken(Stage.AUTH, Category.TLS, "no AUTH without TLS: the password would go in clear")
        if "plain" in self.offer.auth:
            token = auth_plain_encode(login.username, login.password).decode("ascii")
            secrets = [f"AUTH PLAIN {token}"]
        elif "login" in self.offer.auth:
            user, password = auth_login_encode(login.username, login.password)
            secrets = ["AUTH LOGIN", user.decode("ascii"), password.decode("ascii")]
        else:
            return Broken(Stage.AUTH, Category.PROTOCOL, "the server offers neither AUTH PLAIN nor LOGIN")
        for i, line in enumerate(secrets):
            shown = " ".join(line.split(" ")[:2]) + (" ***" if line.startswith("AUTH PLAIN") else "")
            reply = await self._ask(Stage.AUTH, line, self._timers.auth_s, shown=shown if i == 0 else "***")
            if reply.code // 100 == 3 and i + 1 < len(secrets):
                continue
            return None if reply.positive else self._refusal(reply)
        return None

    # --- below the steps --------------------------------------------------------------------------

    async def _ask(
        self, stage: Stage, line: str, timer_s: float, *, shown: str | None = None, forgiving: bool = False
    ) -> Reply:
        assert self.wire is not None
        self._stage = stage
        self.wire.send(line)
        self._log.said(line if shown is None else shown)
        return await self._hear(stage, timer_s, forgiving=forgiving)

    async def _hear(self, stage: Stage, timer_s: float, *, forgiving: bool = False) -> Reply:
        """`forgiving`: what stands behind this reply is thrown away by the TLS upgrade, not judged."""
        assert self.wire is not None
        self._stage = stage
        reply = await self.wire.reply(self._deadline.left(timer_s))
        self._log.heard(reply)
        if not (forgiving and reply.code == 220):
            self.wire.raise_if_garbled()
        return reply

    def _secured(self) -> Outcome | None:
        """After a handshake: what was negotiated, and whether it proves enough."""
        assert self.wire is not None
        session = self.wire.tls_object
        if session is None:
            return self._no_tls("connection lost in the TLS handshake")
        wrong = tls.prove(session, self.hop)
        proving = self.hop.tls in (Tls.VERIFY, Tls.DANE, Tls.IMPLICIT)
        self.tls = tls.facts(session, verified=proving and wrong is None)
        self._log.note(f"{self.tls.version} {self.tls.cipher}{', verified' if self.tls.verified else ''}")
        result = TlsResult.NOT_TRUSTED if self.hop.tls is Tls.DANE else TlsResult.OTHER_NAME
        return self._no_tls(wrong, result) if wrong else None

    def _no_starttls(self, text: str) -> Broken | None:
        """None where it may go on in clear."""
        if self.hop.tls in tls.REQUIRED:
            return self._no_tls(text, TlsResult.NOT_OFFERED)
        self._blame(TlsResult.NOT_OFFERED, text)
        return None

    def _no_tls(self, text: str, result: TlsResult = TlsResult.FAILED) -> Broken:
        self._log.note(text)
        self._blame(result, text)
        self.unprotected = True
        return Broken(Stage.STARTTLS, Category.TLS, text)

    def _blame(self, result: TlsResult, text: str) -> None:
        self.tls_failure = TlsFailure(result, text[:300])

    def _unreachable(self, text: str) -> Broken:
        self._log.note(text)
        return Broken(Stage.CONNECT, Category.NETWORK, text)

    def _refusal(self, reply: Reply) -> Replied:
        if reply.code // 100 == 3:
            raise Garbled(f"unexpected {reply.code} to {self._stage.upper()}")
        return Replied(self._stage, reply)

    def _loop(self, reply: Reply) -> Broken | None:
        """RFC 5321 §6.3: a server that bears our own name is us."""
        name = (reply.lines[0].split(" ")[0] if reply.lines else "").rstrip(".").lower()
        if name != self._name.lower():
            return None
        if _is_loopback(self.hop.address) and not self._manners.suspect_loopback:
            return None
        self._log.note(_LOOP)
        return Broken(self._stage, Category.PROTOCOL, _LOOP)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _ssl_words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return clean(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return clean(error.reason or str(error))
    return clean(str(error) or type(error).__name__)


def _ssl_result(error: BaseException) -> TlsResult:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsResult.EXPIRED if error.verify_code == _EXPIRED else TlsResult.NOT_TRUSTED
    return TlsResult.FAILED
