"""`GET /metrics`: what Prometheus reads. Whoever may read it says `Authorization: Bearer <METRICS_TOKEN>`.

Figures come from Postgres, from the signs of life and from what all processes count (deliveries.counters), not from
the process that answers: they are the installation's, the same from every web process, and no restart of ours sets a
counter back.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from deliveries import counters, metrics
from deliveries.models.figures import TOOK_S, WHAT
from deliveries.read.gauges import Gauges, gauges

#: the version of the text format
_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ROLES = ("deliver", "jobs", "beat")


def scrape(request: HttpRequest) -> HttpResponse:
    """404 without METRICS_TOKEN, 401 without or with a wrong token."""
    if not settings.METRICS_TOKEN:
        return HttpResponse("METRICS_TOKEN is not set.\n", status=404, content_type=_TYPE)
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), settings.METRICS_TOKEN.encode()):
        refused = HttpResponse("Send `Authorization: Bearer <METRICS_TOKEN>`.\n", status=401, content_type=_TYPE)
        refused["WWW-Authenticate"] = "Bearer"
        return refused
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(gauges(), metrics.living(_ROLES), counters.read()))
    return HttpResponse(generate_latest(registry), content_type=_TYPE)


class _Collector:
    """One look, as metric families."""

    def __init__(self, look: Gauges, living: set[str], counted: dict[str, int] | None) -> None:
        self._look = look
        self._living = living
        self._counted = counted

    def collect(self) -> Iterator[Metric]:
        look = self._look
        mail = CounterMetricFamily(
            "mailapi_mail", "What happened to mail, counted by recipient.", labels=["what"], created=None
        )
        for what in sorted({*WHAT.values(), *look.counts}):
            mail.add_metric([what], look.counts.get(what, 0))
        yield mail
        yield _took(look.took)
        lanes = GaugeMetricFamily(
            "mailapi_queue_oldest_due_seconds",
            "How long the oldest mail waits that is due and that nothing keeps back.",
            labels=["lane"],
        )
        for lane, seconds in look.oldest_due_s.items():
            lanes.add_metric([lane], seconds)
        yield lanes
        alive = GaugeMetricFamily(
            "mailapi_worker_alive", "1 while a process of the role gives signs of life.", labels=["role"]
        )
        for role in _ROLES:
            alive.add_metric([role], role in self._living)
        yield alive
        for name, help_text, value in (
            ("mailapi_queue_waiting", "Deliveries that are not finished (100000: as many or more).", look.waiting),
            ("mailapi_queue_leased", "Deliveries that a worker has.", look.in_flight),
            ("mailapi_queue_started", "Deliveries whose final dot may be out.", look.started),
            ("mailapi_sites_resting", "Receivers that asked for less, or were not reached.", look.sites_resting),
            ("mailapi_sites_paused", "Receivers that a person has paused.", look.sites_paused),
            ("mailapi_brakes_open", "Brakes that wait for a person.", look.brakes_open),
            ("mailapi_webhooks_late_seconds", "By how much the most overdue webhook is late.", look.webhooks_late_s),
            ("mailapi_webhook_endpoints_failing", "Endpoints that only fail.", look.endpoints_failing),
            ("mailapi_inbound_late_seconds", "How long the oldest report waits to be read.", look.inbound_late_s),
            ("mailapi_counted_age_seconds", "How old mailapi_mail is.", look.counted_age_s),
        ):
            yield GaugeMetricFamily(name, help_text, value=value)
        yield GaugeMetricFamily(
            "mailapi_valkey_answers", "1 while Valkey does; without it, what processes count is not here.",
            value=self._counted is not None,
        )  # fmt: skip
        counted = self._counted or {}
        for counter in counters.ALL:
            if counter.name in counted:
                yield CounterMetricFamily(counter.name, counter.help, value=counted[counter.name], created=None)


def _took(buckets: list[int]) -> HistogramMetricFamily:
    """Buckets are cumulative here, and each for itself in the tally. Sums are not kept: an upper bound stands in."""
    sums, total, rising = 0.0, 0, []
    for bound, count in zip((*map(float, TOOK_S), float("inf")), buckets, strict=True):
        total += count
        sums += count * min(bound, float(TOOK_S[-1]))
        rising.append(("+Inf" if bound == float("inf") else str(bound), total))
    return HistogramMetricFamily(
        "mailapi_delivery_seconds", "From when a mail was due to its 2xx.", buckets=rising, sum_value=sums
    )
