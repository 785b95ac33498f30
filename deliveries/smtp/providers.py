"""What receivers are known to bear (providers.toml): the numbers that pace.py starts from and stays within."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PROVIDERS_FILE = Path(__file__).with_name("providers.toml")


@dataclass(frozen=True, slots=True)
class Profile:
    """A receiver's manners. Places are transactions at a time over all our processes."""

    name: str
    start: int
    most: int
    messages_per_connection: int
    rate_per_minute: int  #: 0 = no bound but the places
    source: str
    least: int = 1
    longest_rest_s: float = 1800.0  #: bound of an automatic suspension; 0 = it is never suspended
    trusted: bool = False  #: known to answer, so that it needs no first probe


def parse_providers(table: Mapping[str, Any]) -> tuple[Profile, dict[str, Profile]]:
    """The default, and the profiles by site. ValueError: an unknown key, a doubled site, senseless numbers."""
    default = _profile({"name": "any other", **table["default"]})
    by_site: dict[str, Profile] = {}
    for row in table.get("provider", ()):
        row = dict(row)
        sites = row.pop("site")
        profile = _profile(row)
        for site in sites:
            if site in by_site:
                raise ValueError(f"{site} stands in two profiles")
            by_site[site] = profile
    return default, by_site


def _profile(row: dict[str, Any]) -> Profile:
    try:
        profile = Profile(**row)
    except TypeError as e:
        raise ValueError(f"profile {row.get('name')}: {e}") from None
    if not 1 <= profile.least <= profile.start <= profile.most or profile.messages_per_connection < 1:
        raise ValueError(f"profile {profile.name}: 1 ≤ least ≤ start ≤ most and 1 ≤ messages_per_connection")
    if not profile.source:
        raise ValueError(f"profile {profile.name} names no source")
    return profile


@cache
def _providers() -> tuple[Profile, dict[str, Profile]]:
    with PROVIDERS_FILE.open("rb") as file:
        return parse_providers(tomllib.load(file))


def profile_of(site: str) -> Profile:
    """The profile of a site (`google.com`), the default's where it is not known."""
    default, by_site = _providers()
    return by_site.get(site, default)


def trusted_sites() -> tuple[str, ...]:
    """Sites that need no first probe, sorted."""
    return tuple(sorted(site for site, profile in _providers()[1].items() if profile.trusted))
