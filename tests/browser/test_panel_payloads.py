"""Three hundred payloads in everything that comes from outside; a real browser looks, and none of them runs."""

from __future__ import annotations

from datetime import timedelta
from itertools import islice

import pytest
from django.utils import timezone

from deliveries.models import (
    Attempt,
    Message,
    MessageContent,
    SendingDomain,
    SiteWeather,
    Suppression,
    WebhookEndpoint,
)
from deliveries.record.figures import slot_of
from deliveries.states import Status
from tests.browser.test_panel_browser import log_in
from tests.fakes import mail

pytestmark = pytest.mark.django_db(transaction=True)

#: what would run; `hit` is looked for in every frame, and a dialog or a changed title is seen as well
_RUNS = ["window.hit=1", "top.hit=1", "alert(1)", "document.title='hit'", "(()=>{self.hit=1})()"]
_TAGS = [
    "<script>{}</script>",
    "<img src=x onerror={}>",
    "<svg onload={}>",
    "<svg><script>{}</script></svg>",
    "<body onload={}>",
    "<iframe src=\"javascript:{}\"></iframe>",
    "<iframe srcdoc=\"<script>{}</script>\"></iframe>",
    "<a href=\"javascript:{}\">x</a>",
    "<details open ontoggle={}>",
    "<video><source onerror={}></video>",
    "<input autofocus onfocus={}>",
    "<div x-data x-init=\"{}\"></div>",
    "<div x-data='{{a:1}}' x-html='{}'></div>",
    "<img hx-get=/ hx-on::load=\"{}\">",
    "<form action=javascript:{}><button>x</button></form>",
    "<math><mtext></mtext><style><img src onerror={}></style></math>",
    "<template x-if=\"{}\"></template>",
    "<object data=\"javascript:{}\"></object>",
    "<embed src=\"javascript:{}\">",
    "<meta http-equiv=refresh content=\"0;url=javascript:{}\">",
]  # fmt: skip
_BEFORE = ["", '">', "'>"]
_AROUND = ["{0}", "</pre></textarea></title></style>{0}", "-->{0}<!--"]


def payloads() -> list[str]:
    made = [around.format(before + tag.format(run)) for around in _AROUND for before in _BEFORE for tag in _TAGS
            for run in _RUNS]  # fmt: skip
    # every third of 900, so that each part meets each other part
    return [*made[::3], "{{constructor.constructor('window.hit=1')()}}", "' x-data x-init='window.hit=1", "\u2028"]


def test_no_payload_runs_in_any_page(open_page):
    own = mail.tenant("Shop")
    mail.person("dora", own, role="developer")
    stock = iter(payloads())
    assert len(payloads()) >= 300
    rows: list[Message] = []
    while batch := list(islice(stock, 16)):
        batch += [""] * (16 - len(batch))
        row = mail.message(
            own, f"{batch[0]}@example.net", subject=batch[1], sender=batch[2], reply=batch[3], filename=batch[4],
            text=batch[5], html=batch[6], tags=[{"name": batch[7], "value": batch[8]}], status=Status.DEFERRED,
            host=batch[9], reason=batch[10], rule=batch[11][:80],
            transcript="\n".join(f"{n} S: {p}" for n, p in enumerate(batch[12:15])),
        )  # fmt: skip
        Suppression.objects.create(
            tenant=own, address=f"{batch[0]}@example.net".lower(), stream="*", reason="bounce", detail=batch[3],
            created_at=timezone.now(),
        )  # fmt: skip
        # a site's name is a host's of ours or what a route says; its words are the peer's
        site = f"{len(rows)}{batch[9]}"
        mail.site(site, suspended_until=timezone.now() + timedelta(hours=1), reason=batch[10], last_reply=batch[3])
        SiteWeather.objects.create(site=site, slot=slot_of(timezone.now()), delivered=9, deferred=1, bounced=1, ms=9)
        WebhookEndpoint.objects.create(tenant=own, url=batch[1] or "x", secret=b"x", failing_since=timezone.now())
        SendingDomain.objects.create(tenant=own, name=f"{len(rows)}{batch[2]}")
        MessageContent.objects.filter(id=row.id).update(headers=[[batch[15], batch[0]]])
        Attempt.objects.filter(delivery__message_id=row.id).update(host=batch[12], tls=batch[13][:80])
        rows.append(row)

    page, _ = open_page()
    page.on("dialog", lambda dialog: ran.append(dialog.message) or dialog.dismiss())
    ran: list[str] = []
    # the detectors detect: the same text in a page without protection
    page.set_content("<img src=x onerror=window.hit=1><img src=x onerror=alert(1)>")
    page.wait_for_function("window.hit === 1")
    while not ran:  # bounded by the page's time-out
        page.wait_for_event("dialog")
    assert ran == ["1"]
    ran.clear()
    mail.person("root", operator=True)
    log_in(page, "root")  # who sees what members see, and the pages of the installation
    pages = [
        "/admin/",
        "/admin/queue/",
        "",
        "?q=%3Cscript%3Ewindow.hit%3D1%3C/script%3E",
        *(f"{row.id}/change/" for row in rows),
    ]
    for address in pages:
        page.goto(address if address.startswith("/") else f"/admin/deliveries/message/{address}")
        if address.endswith("/change/"):
            preview = page.locator("#preview")
            if preview.count():
                preview.scroll_into_view_if_needed()
                page.wait_for_load_state("load")
        for frame in page.frames:
            if frame == page.main_frame:
                assert frame.evaluate("window.hit") is None, address
                assert frame.title() != "hit", address
    for row in rows:
        page.goto(f"/admin/deliveries/message/{row.id}/source/")
        assert page.evaluate("window.hit") is None and page.title() != "hit"
    assert ran == []
