"""The second factor of a login: an authenticator app (TOTP, RFC 6238) and the recovery codes beside it."""

from __future__ import annotations

import time
from base64 import b32encode
from typing import Any
from urllib.parse import quote, urlencode

from django.db import models
from django_otp.models import Device, ThrottlingMixin, TimestampMixin
from django_otp.oath import TOTP

from deliveries.models.accounts import User
from deliveries.models.fields import EncryptedField, Sealed

STEP_S = 30
DIGITS = 6
#: steps before and after the present one that are taken: a phone's clock may be half a minute off (RFC 6238 §5.2)
TOLERANCE = 1


class Authenticator(TimestampMixin, ThrottlingMixin, Device):
    """One per login. Unconfirmed until a first code proves that the app has the key."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="authenticator")
    key = EncryptedField(help_text="20 octets, shared with the app.")
    last_step = models.BigIntegerField(default=-1, help_text="The step of the last code; each code is taken once.")

    objects: models.Manager[Authenticator] = models.Manager()

    class Meta:
        db_table = "authenticator"

    def get_throttle_factor(self) -> int:
        """1, 2, 4, 8 … seconds of pause after a wrong code."""
        return 1

    def verify_token(self, token: Any) -> bool:
        """Whether `token` is the app's code now; the caller holds the row's lock, so that no code is taken twice."""
        if not self.verify_is_allowed()[0]:
            return False
        if isinstance(self.key, Sealed):  # no code fits; a recovery code does
            return False
        totp = TOTP(bytes(self.key), STEP_S, 0, DIGITS)
        totp.time = time.time()
        if not totp.verify(int(token), TOLERANCE, self.last_step + 1):
            self.throttle_increment(commit=True)
            return False
        self.last_step = totp.t()
        self.throttle_reset(commit=False)
        self.set_last_used_timestamp(commit=False)
        self.save()
        return True

    @property
    def key_text(self) -> str:
        """Base32, for those who type it."""
        return b32encode(bytes(self.key)).decode("ascii")

    def address(self, issuer: str) -> str:
        """What the QR code holds: otpauth://totp/…"""
        facts = {"secret": self.key_text, "issuer": issuer, "digits": DIGITS, "period": STEP_S}
        label = quote(f"{issuer}:{self.user.get_username()}")
        return f"otpauth://totp/{label}?{urlencode(facts, quote_via=quote)}"


class RecoveryCode(models.Model):
    """Stands in for the app once; 80 bits, kept only as their SHA-256."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recovery_codes")
    code_hash = models.BinaryField(max_length=32, unique=True)
    used_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "recovery_code"

    def __str__(self) -> str:
        return f"of {self.user}, {'used' if self.used_at else 'unused'}"
