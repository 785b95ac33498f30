"""Forward-confirmed reverse DNS."""

from __future__ import annotations

import asyncio

from deliveries.routing.rdns import Confirmed, fcrdns
from deliveries.routing.resolver import Resolver
from tests.fakes.dns import FakeDns

TABLE = """
    1.9.9.9.in-addr.arpa   PTR  wrong.example
    1.9.9.9.in-addr.arpa   PTR  mail.example
    mail.example           A    9.9.9.1
    wrong.example          A    9.9.9.7
    2.9.9.9.in-addr.arpa   PTR  wrong.example
    4.9.9.9.in-addr.arpa   PTR  SERVFAIL
    5.9.9.9.in-addr.arpa   PTR  sick.example
    sick.example           A    SERVFAIL
    mail.example           AAAA 2620:fe::1
    1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.e.f.0.0.0.2.6.2.ip6.arpa PTR mail.example
"""


def check(address: str) -> Confirmed:
    with FakeDns(TABLE) as dns:

        async def go() -> Confirmed:
            return await fcrdns(Resolver((dns.address,), timeout_s=dns.patience_s), address)

        return asyncio.run(go())


def test_a_name_that_leads_back_confirms() -> None:
    assert check("9.9.9.1").names == ("mail.example",)
    assert check("2620:fe:0::1").names == ("mail.example",)


def test_a_name_of_another_address_does_not() -> None:
    result = check("9.9.9.2")
    assert (result.names, result.certain) == ((), True)
    assert result.text == "The PTR of 9.9.9.2 is wrong.example, which has another address."


def test_no_ptr_does_not() -> None:
    assert (check("9.9.9.3").names, check("9.9.9.3").certain) == ((), True)


def test_trouble_is_no_answer() -> None:
    assert not check("9.9.9.4").certain
    assert not check("9.9.9.5").certain
