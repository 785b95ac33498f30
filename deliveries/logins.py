"""The second factor: set up, proved, replaced and taken away; each step one transaction and an entry in the audit log.

begin      a new key, unconfirmed
confirm    the first code: the key counts from now on, and recovery codes are made
verify     a code of the app, or a recovery code, at a login
renew      new recovery codes in place of the old ones
remove     by the person, or by the operator for somebody who lost the phone
"""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b32encode
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deliveries.models import AuditEntry, Authenticator, RecoveryCode, User

RECOVERY_CODES = 10
_CODE_OCTETS = 10


@dataclass(frozen=True, slots=True)
class Proof:
    """`device` is None where the code was wrong; `wait_until` where no code is taken just now."""

    device: Authenticator | None
    wait_until: datetime | None = None


def needed(user: User) -> bool:
    """Whether SECOND_FACTOR demands one of this login."""
    return settings.SECOND_FACTOR == "everyone" or (settings.SECOND_FACTOR == "operators" and user.is_superuser)


def authenticator(user: User) -> Authenticator | None:
    """The confirmed one."""
    return Authenticator.objects.filter(user=user, confirmed=True).first()


def begin(user: User) -> Authenticator:
    """The unconfirmed authenticator, with the key of an earlier visit where there is one. A confirmed one stays."""
    device, _ = Authenticator.objects.get_or_create(
        user=user, defaults={"name": "app", "confirmed": False, "key": os.urandom(20)}
    )
    return device


@transaction.atomic
def confirm(user: User, code: str) -> tuple[Proof, list[str]]:
    """The first code: proof, and the recovery codes to show once (empty where the code was wrong)."""
    device = Authenticator.objects.select_for_update().filter(user=user, confirmed=False).first()
    if device is None:
        return Proof(None), []
    if proof := _wait(device):
        return proof, []
    if not _is_code(code) or not device.verify_token(_digits(code)):
        return Proof(None), []
    device.confirmed = True
    device.save(update_fields=["confirmed"])
    _audit(user, "login.second_factor_added")
    return Proof(device), _new_codes(user)


@transaction.atomic
def verify(user: User, code: str) -> Proof:
    """Six digits are the app's code, anything else a recovery code, which is used up."""
    device = Authenticator.objects.select_for_update().filter(user=user, confirmed=True).first()
    if device is None:
        return Proof(None)
    if proof := _wait(device):
        return proof
    if _is_code(code):
        return Proof(device if device.verify_token(_digits(code)) else None)
    unused = RecoveryCode.objects.filter(user=user, code_hash=_hash(code), used_at=None)
    if not unused.update(used_at=timezone.now()):
        device.throttle_increment(commit=True)
        return Proof(None)
    device.throttle_reset(commit=True)
    _audit(user, "login.recovery_code_used")
    return Proof(device)


@transaction.atomic
def renew(user: User) -> list[str]:
    """New recovery codes, to show once; the old ones are void."""
    _audit(user, "login.recovery_codes_renewed")
    return _new_codes(user)


@transaction.atomic
def remove(user: User, actor: str) -> bool:
    """No second factor any more; False where there was none."""
    gone, _ = Authenticator.objects.filter(user=user).delete()
    RecoveryCode.objects.filter(user=user).delete()
    if gone:
        _audit(user, "login.second_factor_removed", actor)
    return bool(gone)


def codes_left(user: User) -> int:
    return RecoveryCode.objects.filter(user=user, used_at=None).count()


def _wait(device: Authenticator) -> Proof | None:
    allowed, why = device.verify_is_allowed()
    return None if allowed else Proof(None, why["locked_until"])


def _is_code(text: str) -> bool:
    return re.fullmatch(r"[0-9]{6}", _digits(text)) is not None


def _digits(text: str) -> str:
    return text.replace(" ", "")


def _new_codes(user: User) -> list[str]:
    RecoveryCode.objects.filter(user=user).delete()
    codes = []
    for _ in range(RECOVERY_CODES):
        text = b32encode(os.urandom(_CODE_OCTETS)).decode("ascii").lower()
        codes.append("-".join(text[i : i + 4] for i in range(0, len(text), 4)))
    RecoveryCode.objects.bulk_create([RecoveryCode(user=user, code_hash=_hash(code)) for code in codes])
    return codes


def _hash(code: str) -> bytes:
    """Case, hyphens and blanks do not matter to a person who types it."""
    return hashlib.sha256(re.sub(r"[^a-z2-7]", "", code.lower()).encode()).digest()


def _audit(user: User, action: str, actor: str = "") -> None:
    name = user.get_username()
    AuditEntry.objects.create(tenant_id=None, actor=(actor or name)[:200], action=action, subject=name[:300])
