"""What the lab accepted: the newest N mails with their octets, and how often each Message-ID came.

With a directory, the newest N also stand there as `<number>.eml` and `<number>.json`, `counts.json` beside them, for
readers in other processes; written twice a second, so that a flood costs a disk no more than N files at a time.
`log` is one JSON line per accepted mail, without a cap: tests count copies in it.
"""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_MESSAGE_ID = re.compile(rb"(?im)^message-id:[ \t]*(?:\r\n[ \t]+)?(\S+)")
_SUBJECT = re.compile(rb"(?im)^subject:[ \t]*(.*?)\r?$")
_HEAD_OCTETS = 65_536
#: Message-IDs counted; above it counting stops rather than the lab
_MAX_IDS = 2_000_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """One mail that got a 250, or would have (dropdot). `at` is UTC, ISO 8601; `copy` counts from 1 per Message-ID."""

    number: int
    at: str
    peer: str
    helo: str
    tls: str  #: version, "" in clear
    reverse_path: str
    forward_paths: tuple[str, ...]
    message_id: str
    subject: str
    size_octets: int
    behaviour: str
    copy: int
    octets: bytes = field(repr=False)

    def facts(self) -> dict[str, Any]:
        """All but the octets."""
        found = asdict(self)
        del found["octets"]
        return found


class Spool:
    """Newest last in `messages`."""

    def __init__(self, keep: int, directory: Path | None = None, log: Path | None = None) -> None:
        self.messages: deque[Accepted] = deque(maxlen=keep)
        self.copies: Counter[str] = Counter()
        self.accepted = 0
        self._directory = directory
        self._log_path = log
        self._log: list[str] = []
        self._written: deque[int] = deque()
        self._flushed = 0
        if directory:
            directory.mkdir(parents=True, exist_ok=True)
            # numbers go on after a restart, so that a reader's newest is ours
            old = sorted(int(f.stem) for f in directory.glob("*.eml") if f.stem.isdigit())
            self._written.extend(old)
            self.accepted = self._flushed = old[-1] if old else 0

    def add(
        self,
        octets: bytes,
        *,
        peer: str,
        helo: str,
        tls: str,
        reverse_path: str,
        forward_paths: tuple[str, ...],
        behaviour: str,
    ) -> Accepted:
        head = octets[:_HEAD_OCTETS].partition(b"\r\n\r\n")[0] + b"\r\n"
        message_id = _text(_MESSAGE_ID.search(head))
        if message_id in self.copies or len(self.copies) < _MAX_IDS:
            self.copies[message_id] += 1
        self.accepted += 1
        mail = Accepted(
            number=self.accepted,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            peer=peer,
            helo=helo,
            tls=tls,
            reverse_path=reverse_path,
            forward_paths=forward_paths,
            message_id=message_id,
            subject=_text(_SUBJECT.search(head)),
            size_octets=len(octets),
            behaviour=behaviour,
            copy=self.copies[message_id],
            octets=octets,
        )
        self.messages.append(mail)
        if self._log_path:
            self._log.append(json.dumps(mail.facts()))
        return mail

    def flush(self) -> None:
        """Write what is new; blocking, a few milliseconds."""
        if self._log:
            assert self._log_path is not None
            with self._log_path.open("a", encoding="utf-8") as log:
                log.write("\n".join(self._log) + "\n")
            self._log.clear()
        if not self._directory or self._flushed == self.accepted:
            return
        for mail in self.messages:
            if mail.number > self._flushed:
                stem = self._directory / f"{mail.number:012d}"
                _put(stem.with_suffix(".json"), json.dumps(mail.facts()).encode())
                _put(stem.with_suffix(".eml"), mail.octets)  # last: who sees the .eml finds the .json
                self._written.append(mail.number)
        self._flushed = self.accepted
        while len(self._written) > (self.messages.maxlen or 0):
            stem = self._directory / f"{self._written.popleft():012d}"
            stem.with_suffix(".eml").unlink(missing_ok=True)
            stem.with_suffix(".json").unlink(missing_ok=True)
        several = {mid: n for mid, n in self.copies.most_common(1000) if n > 1}
        counts = {"accepted": self.accepted, "message_ids": len(self.copies), "copies": several}
        _put(self._directory / "counts.json", json.dumps(counts).encode())


def _put(path: Path, octets: bytes) -> None:
    """Whole or not at all for a reader in another process."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(octets)
    part.replace(path)


def _text(found: re.Match[bytes] | None) -> str:
    return found[1].decode("utf-8", "replace").strip()[:998] if found else ""
