"""The receiver lab: a real SMTP receiver that behaves by recipient address, for people and tests (no Internet needed).

    python -m deliveries.sandbox --listen 127.0.0.1:2525 --bounce-to 127.0.0.1:2526

`behaviours` says what each address does, `server` speaks SMTP, `spool` keeps what was accepted, `reports` writes the
DSNs, ARF reports and vacation notes that come back, `lab` holds them together.
"""

from __future__ import annotations

from deliveries.sandbox.behaviours import DOMAIN
from deliveries.sandbox.lab import Lab
from deliveries.sandbox.spool import Accepted

__all__ = ["DOMAIN", "Accepted", "Lab"]
