"""The lab as a whole: listeners, spool, and the reports that it sends back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from deliveries.sandbox import reports
from deliveries.sandbox.behaviours import Behaviour, Report
from deliveries.sandbox.certificate import make_context
from deliveries.sandbox.server import Conversation, Desk
from deliveries.sandbox.spool import Accepted, Spool
from deliveries.smtp.hop import Envelope, Hop
from deliveries.smtp.outcome import Replied
from deliveries.smtp.pool import Pool
from deliveries.smtp.session import Timers, open_gate

log = logging.getLogger(__name__)

#: reports on their way at once; above it new ones are not sent, since a flood of mail must not become one of reports
_MAX_REPORTS = 2_000
_REPORT_TRIES = 5
_FLUSH_S = 0.5


class Lab:
    """`await lab.start()`, send to `lab.address`, look at `lab.messages`, `await lab.stop()`.

    `bounce_to` is where reports go (host, port), None for none. `slow_s` is the pause of slow@ before each answer,
    `report_after_s` that of a report. Ports given as 0 are chosen by the kernel.
    """

    def __init__(
        self,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        *,
        bounce_to: tuple[str, int] | None = None,
        badcert_listen: tuple[str, int] | None = None,
        helo: str = "lab.simulator.test",
        keep: int = 200,
        spool: Path | None = None,
        spool_log: Path | None = None,
        tls: bool = True,
        slow_s: float = 2.0,
        report_after_s: float = 1.0,
        max_size_octets: int = 40 * 1024 * 1024,
        any_domain: bool = False,
    ) -> None:
        self.helo = helo
        self.certificate = b""  #: PEM, known after start
        self._listen = listen
        self._bounce_to = bounce_to
        self._badcert_listen = badcert_listen
        self._tls = tls
        self._slow_s = slow_s
        self._report_after_s = report_after_s
        self._max_size = max_size_octets
        self._any_domain = any_domain
        self._spool = Spool(keep, spool, spool_log)
        self._servers: list[asyncio.Server] = []
        self._desks: list[Desk] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._pool: Pool | None = None

    @property
    def address(self) -> tuple[str, int]:
        return self._servers[0].sockets[0].getsockname()[:2]

    @property
    def badcert_address(self) -> tuple[str, int]:
        return self._servers[1].sockets[0].getsockname()[:2]

    @property
    def messages(self) -> Sequence[Accepted]:
        """The newest accepted mails, oldest first."""
        return tuple(self._spool.messages)

    @property
    def accepted(self) -> int:
        return self._spool.accepted

    def copies(self, message_id: str) -> int:
        """How many mails with this Message-ID (angle brackets included) were accepted."""
        return self._spool.copies[message_id]

    async def start(self) -> None:
        context = None
        if self._tls:
            context, self.certificate = make_context(self.helo)
        await self._open(self._listen, context)
        if self._badcert_listen:
            bad, _ = make_context("somebody.else.test", expired=True)
            await self._open(self._badcert_listen, bad)
        timers = Timers(connect_s=5, greeting_s=10, hello_s=10, mail_s=10, rcpt_s=10, data_s=10, dot_s=30)
        self._pool = Pool(helo_name=self.helo, timers=timers)
        self._spawn(self._keep_flushing())

    async def stop(self) -> None:
        """Within two seconds: nothing that the lab still does is worth waiting for."""
        for server in self._servers:
            server.close()
        for desk in self._desks:
            for conversation in list(desk.conversations):
                conversation.hang_up()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._pool:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._pool.close(), 1)
        self._spool.flush()

    async def _open(self, listen: tuple[str, int], context: ssl.SSLContext | None) -> None:
        desk = Desk(
            host=self.helo,
            spool=self._spool,
            context=context,
            slow_s=self._slow_s,
            max_size_octets=self._max_size,
            on_accepted=self._on_accepted,
            any_domain=self._any_domain,
        )
        self._desks.append(desk)
        server = await asyncio.get_running_loop().create_server(lambda: Conversation(desk), *listen, backlog=512)
        self._servers.append(server)

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_S)
            self._spool.flush()

    # --- reports ----------------------------------------------------------------------------------

    def _on_accepted(self, mail: Accepted, behaviour: Behaviour) -> None:
        # RFC 5321 §4.5.5: nothing is ever sent back to the null reverse-path
        if behaviour.report and mail.reverse_path and self._bounce_to and len(self._tasks) < _MAX_REPORTS:
            self._spawn(self._report(behaviour.report, mail))

    async def _report(self, kind: Report, mail: Accepted) -> None:
        assert self._bounce_to is not None and self._pool is not None
        octets = reports.write(kind, mail, self.helo)
        hop = Hop(host=self._bounce_to[0], address=self._bounce_to[0], port=self._bounce_to[1])
        envelope = Envelope("", mail.reverse_path)
        for attempt in range(_REPORT_TRIES):
            await asyncio.sleep(self._report_after_s * (attempt + 1))
            outcome = (await self._pool.deliver([hop], envelope, octets, open_gate, 30))[-1].outcome
            if isinstance(outcome, Replied) and (outcome.reply.positive or outcome.reply.permanent):
                if outcome.reply.permanent:
                    log.warning("%s about mail %s refused: %s", kind, mail.number, outcome.reply.text)
                return
        log.warning("%s about mail %s could not be sent", kind, mail.number)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a task of the lab failed", exc_info=error)
