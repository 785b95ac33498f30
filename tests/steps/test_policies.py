"""MTA-STS policies outlive the process that fetched them."""

from __future__ import annotations

import asyncio

import pytest

from deliveries.deliver.policies import Policies
from deliveries.models import MtaStsPolicy
from deliveries.routing.mta_sts import Mode, Policy, Stored

pytestmark = pytest.mark.django_db(transaction=True)

STORED = Stored("20260101", Policy(Mode.ENFORCE, ("mx.one.test", "*.two.test"), 604800), 1_770_000_000.0)


def test_what_one_process_learned_another_knows() -> None:
    one, two = Policies(), Policies()
    try:
        assert asyncio.run(two.get("unknown.test")) is None
        asyncio.run(one.put("one.test", STORED))
        assert asyncio.run(two.get("one.test")) == STORED
    finally:
        one.close()
        two.close()


def test_a_newer_policy_takes_the_place_of_the_older() -> None:
    store = Policies()
    newer = Stored("20260202", Policy(Mode.NONE, (), 86400), 1_771_000_000.0)
    try:
        asyncio.run(store.put("one.test", STORED))
        asyncio.run(store.put("one.test", newer))
        assert asyncio.run(store.get("one.test")) == newer
    finally:
        store.close()
    assert MtaStsPolicy.objects.get(domain="one.test").mode == "none"


def test_a_domain_asked_for_again_costs_no_second_query() -> None:
    store = Policies()
    try:
        asyncio.run(store.put("one.test", STORED))
        MtaStsPolicy.objects.all().delete()
        assert asyncio.run(store.get("one.test")) == STORED
    finally:
        store.close()
