"""One client that submits mail (RFC 6409): AUTH before anything else, over TLS only, and the DSN parameters.

Order: EHLO, STARTTLS (or implicit TLS, RFC 8314), EHLO, AUTH PLAIN or LOGIN (RFC 4954), then transactions with NOTIFY,
ORCPT, RET and ENVID (RFC 3461). Where the listener allows it, a client on loopback may log in without TLS. A mail gets
no Received line here: it is the same mail as by the other doors, and where an application runs is nobody's business.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deliveries.smtp.inbound import Conversation, Transaction
from deliveries.smtp.path import PathArgument, needs_smtputf8
from deliveries.smtp.received import Asked, Received, Refusal

if TYPE_CHECKING:
    from deliveries.smtp.listener import Listener

log = logging.getLogger(__name__)

#: on one connection
_MAX_FAILURES = 3
_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})
#: RFC 3461 §4: printable, encoded so that a parameter holds neither space nor "="
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_MAX_ENVID = 100  # RFC 3461 §4.4
_MAX_ORCPT = 500  # RFC 3461 §4.2


class Submission(Conversation):
    """Counts failed logins at the listener, per address of the client."""

    mail_parameters = Conversation.mail_parameters | {"RET", "ENVID"}
    rcpt_parameters = frozenset({"NOTIFY", "ORCPT"})
    stored_as = "queued as"

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
        self._smtp_methods["AUTH"] = self.smtp_AUTH
        self._failures = 0
        self._principal: object | None = None

    def connection_made(self, transport: Any) -> None:
        # RFC 3207 §4.2: what was known before TLS is forgotten
        self._principal = None
        super().connection_made(transport)

    def offers(self) -> list[str]:
        offers = [*super().offers(), "DSN"]
        return [*offers, "AUTH PLAIN LOGIN"] if self._may_authenticate else offers

    # --- verbs ------------------------------------------------------------------------------------

    async def smtp_MAIL(self, arg: str | None) -> None:
        if self._principal is None and self.session.host_name:
            return await self.push("530 5.7.0 Authentication required")
        return await super().smtp_MAIL(arg)

    async def smtp_AUTH(self, arg: str | None) -> None:
        if await self.check_helo_needed("EHLO"):
            return None
        if not self._may_authenticate:
            return await self.push("538 5.7.11 Encryption required for AUTH")
        if self._principal is not None or self.envelope.reverse_path is not None:
            return await self.push("503 5.5.1 Not now")
        if not self._listener.may_guess(self._peer):
            return await self._enough()
        mechanism, _, initial = (arg or "").partition(" ")
        try:
            login = await self._login(mechanism.upper(), initial.strip())
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return await self.push("501 5.5.2 Malformed or cancelled")
        except asyncio.LimitOverrunError:
            return None  # aiosmtpd's loop reads the line to its end, and refuses it
        if login is None:
            return await self.push("504 5.5.4 Mechanism not offered")
        try:
            assert self._listener.authenticate is not None
            self._principal = await self._listener.authenticate(*login, self._peer)
        except Exception:
            # whatever it was, the key may be right: the client must not be told that it is wrong
            log.exception("login of %s could not be checked", self._peer)
            return await self.push("454 4.7.0 Cannot check that now, try again later")
        if self._principal is not None:
            return await self.push("235 2.7.0 Welcome")
        self._failures += 1
        self._listener.guessed_wrong(self._peer)
        if self._failures < _MAX_FAILURES:
            return await self.push("535 5.7.8 Credentials refused: the password is an API key")
        return await self._enough()

    # --- what is asked for ------------------------------------------------------------------------

    def asked_of_mail(self, path: PathArgument) -> Refusal | None:
        ret, envid = path.parameters.get("RET"), path.parameters.get("ENVID")
        if ret is not None and ret.upper() not in ("FULL", "HDRS"):
            return Refusal(501, "5.5.4 RET is FULL or HDRS")
        if envid is not None and (not _XTEXT.fullmatch(envid) or len(envid) > _MAX_ENVID):
            return Refusal(501, "5.5.4 ENVID is xtext of at most 100 characters")
        self.envelope.utf8 = "SMTPUTF8" in path.parameters
        if needs_smtputf8(path.mailbox) and not self.envelope.utf8:
            return Refusal(553, "5.6.7 The path needs SMTPUTF8")
        self.envelope.ret, self.envelope.envid = (ret or "").upper(), envid or ""
        return None

    def asked_of_rcpt(self, path: PathArgument) -> Refusal | None:
        words = {w for w in path.parameters.get("NOTIFY", "").upper().split(",") if w}
        orcpt = path.parameters.get("ORCPT", "")
        if "NOTIFY" in path.parameters and words != {"NEVER"} and (not words or words - _NOTIFY):
            return Refusal(501, "5.5.4 NOTIFY is NEVER, or some of SUCCESS, FAILURE and DELAY")
        kind, _, address = orcpt.partition(";")
        if orcpt and (len(orcpt) > _MAX_ORCPT or not kind or not _XTEXT.fullmatch(address)):
            return Refusal(501, "5.5.4 ORCPT is type;xtext")
        if needs_smtputf8(path.mailbox) and not self.envelope.utf8:
            return Refusal(553, "5.6.7 The path needs SMTPUTF8")
        self.envelope.asked[path.mailbox] = Asked(frozenset(words - {"NEVER"}), orcpt)
        return None

    def _received(self, octets: bytes, envelope: Transaction) -> Received:
        mail = super()._received(octets, envelope)
        return replace(
            mail,
            octets=octets,
            principal=self._principal,
            ret=envelope.ret,
            envid=envelope.envid,
            asked=tuple(envelope.asked.get(path, Asked()) for path in envelope.rcpt_tos),
        )

    # --- AUTH -------------------------------------------------------------------------------------

    @property
    def _may_authenticate(self) -> bool:
        if self._encrypted:
            return True
        try:
            return self._listener.clear_auth and ipaddress.ip_address(self._peer).is_loopback
        except ValueError:
            return False

    async def _enough(self) -> None:
        await self.push("421 4.7.0 Too many failed logins, try again later")
        self.transport.close()

    async def _login(self, mechanism: str, initial: str) -> tuple[str, str] | None:
        if mechanism == "PLAIN":
            token = initial or await self._challenge("")
            _, username, password = base64.b64decode(token, validate=True).decode().split("\0")
            return username, password
        if mechanism == "LOGIN":
            words = []
            for question in (b"Username:", b"Password:"):
                token = initial or await self._challenge(base64.b64encode(question).decode())
                initial = ""
                words.append(base64.b64decode(token, validate=True).decode())
            return words[0], words[1]
        return None

    async def _challenge(self, question: str) -> str:
        await self.push(f"334 {question}")
        line: bytes = await self._reader.readuntil(b"\n")
        answer = line.strip().decode("ascii")
        if answer == "*":
            raise ValueError("cancelled")
        return answer
