"""Typed DNS answers (interface; the look-ups follow)."""

from __future__ import annotations


class Resolver:
    """Placeholder until the look-ups stand in the next commit."""
