"""Why a domain has no hop: one function per reason, with its enhanced status code, category and rule.

Permanent only where DNS said no with authority. Trouble, and whatever is of our own making, is temporary: a mail
that waits can still be delivered, one that bounced cannot.
"""

from __future__ import annotations

from dataclasses import dataclass

from deliveries.routing.tls_rpt import Promise
from deliveries.states import Category

BAD_DESTINATION_SYSTEM = "5.1.2"  # RFC 3463 §3.2: the domain does not exist or cannot
NULL_MX = "5.1.10"  # RFC 7505 §4.2: recipient address has null MX
UNABLE_TO_ROUTE = "5.4.4"  # RFC 3463 §3.5: the information that is needed to route is not there
UNABLE_TO_ROUTE_NOW = "4.4.4"  # the same, where it may come
DIRECTORY_FAILURE = "4.4.3"  # RFC 3463 §3.5: directory server failure, always temporary
ROUTING_LOOP = "5.4.6"  # RFC 3463 §3.5: the mail would come back to us
POLICY_UNMET = "4.7.5"  # RFC 3463 §3.8: cryptographic failure; the domain's TLS policy leaves no host


@dataclass(frozen=True, slots=True)
class Unroutable:
    """No hop. `rule` is a stable word for statistics, `text` one sentence for a person."""

    permanent: bool
    enhanced: str
    category: Category
    text: str
    rule: str
    #: where a domain's own TLS policy is the reason: that policy, for its reports
    promise: Promise | None = None


def bad_name(domain: str) -> Unroutable:
    return Unroutable(
        True, BAD_DESTINATION_SYSTEM, Category.BAD_DOMAIN, f"{domain!r} is no domain that DNS can hold.", "dns-bad-name"
    )


def no_such_domain(domain: str) -> Unroutable:
    return Unroutable(
        True, BAD_DESTINATION_SYSTEM, Category.BAD_DOMAIN, f"The domain {domain} does not exist.", "dns-nxdomain"
    )


def contradiction(domain: str) -> Unroutable:
    # a broken server says NXDOMAIN to MX and has an address: nothing it says is certain
    text = f"DNS says both that {domain} does not exist and that it does."
    return Unroutable(False, DIRECTORY_FAILURE, Category.DNS_ERROR, text, "dns-contradiction")


def no_lab() -> Unroutable:
    text = "It was sent with a test key, and there is no receiver lab (SANDBOX_SMTP); it goes nowhere else."
    return Unroutable(False, UNABLE_TO_ROUTE_NOW, Category.DNS_ERROR, text, "no-lab")


def null_mx(domain: str) -> Unroutable:
    text = f"The domain {domain} takes no mail: it publishes a null MX."
    return Unroutable(True, NULL_MX, Category.BAD_DOMAIN, text, "dns-null-mx")


def trouble(domain: str, said: str) -> Unroutable:
    text = f"DNS gives no answer about {domain}: {said}."
    return Unroutable(False, DIRECTORY_FAILURE, Category.DNS_ERROR, text, "dns-trouble")


def no_mail_host(domain: str) -> Unroutable:
    text = f"The domain {domain} has neither MX nor address."
    return Unroutable(True, UNABLE_TO_ROUTE, Category.BAD_DOMAIN, text, "dns-no-mail-host")


def no_usable_mx(domain: str, certain: bool) -> Unroutable:
    """MX records whose hosts all have no address. RFC 5321 §5.1: an error, and never the address of the domain."""
    text = f"None of the MX hosts of {domain} has an address."
    code = UNABLE_TO_ROUTE if certain else UNABLE_TO_ROUTE_NOW
    return Unroutable(certain, code, Category.DNS_ERROR, text, "dns-mx-unusable")


def not_public(domain: str, address: str) -> Unroutable:
    text = f"The mail hosts of {domain} have only addresses that are not public ({address})."
    return Unroutable(True, UNABLE_TO_ROUTE, Category.DNS_ERROR, text, "dns-mx-private")


def loop(domain: str) -> Unroutable:
    text = f"Mail for {domain} would come back to this server: its MX is ourselves, and no route names another host."
    return Unroutable(True, ROUTING_LOOP, Category.DNS_ERROR, text, "dns-mx-own")


def only_ipv6(domain: str) -> Unroutable:
    text = f"{domain} is reached by IPv6 only, and no source address of ours is verified for IPv6."
    return Unroutable(False, UNABLE_TO_ROUTE_NOW, Category.NETWORK, text, "dns-ipv6-only")


def route_host_unknown(route: str, said: str) -> Unroutable:
    # our own setting is wrong or our DNS is: never the recipient's fault
    text = f"The host of the route {route} has no address: {said}."
    return Unroutable(False, UNABLE_TO_ROUTE_NOW, Category.DNS_ERROR, text, "route-host-unknown")


def policy_unmet(domain: str, why: str, promise: Promise) -> Unroutable:
    # RFC 8461 §5: delay, not refusal; the domain may be between two policies
    text = f"The TLS policy of {domain} leaves no host to deliver to: {why}."
    return Unroutable(False, POLICY_UNMET, Category.TLS, text, "tls-policy-unmet", promise)
