"""The suppression list in the panel: import with a preview, export, undo in bulk; brakes that the operator decides."""

from __future__ import annotations

import csv
import io
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import timezone

from deliveries.models import Brake, Event, Site, Suppression, Tenant
from deliveries.record import brakes
from deliveries.states import Category
from tests.fakes import mail
from tests.fakes.person import login

pytestmark = pytest.mark.django_db

LIST = "/admin/deliveries/suppression/"


def path(name: str) -> str:
    return reverse(f"admin:deliveries_suppression_{name}")


@pytest.fixture
def shop():
    return mail.tenant("shop")


def file(text: str) -> SimpleUploadedFile:
    return SimpleUploadedFile("list.csv", text.encode())


def test_a_file_is_shown_before_it_is_imported(shop):
    client = login(mail.person("dev", shop, role="developer"))
    asked = {"tenant": str(shop.pk), "form": "csv", "reason": ""}
    text = "email,reason\ngone@a.example,bounce\n<b>x</b>,bounce\nann@a.example,\n"
    page = client.post(path("import_list"), {**asked, "file": file(text)})
    html = page.content.decode()
    assert "<strong>2</strong> addresses" in html and "gone@a.example" in html and "line 3" in html
    assert "<b>x</b>" not in html
    assert not Suppression.objects.filter(tenant=shop).exists()
    done = client.post(path("import_list"), {"confirmed": page.context["signed"]})
    told = b"".join(done.streaming_content).decode()
    assert "2 of 2" in told and "2 new; 0 were on the list already." in told and told.rstrip().endswith("</html>")
    found = dict(Suppression.objects.filter(tenant=shop).values_list("address", "reason"))
    assert found == {"gone@a.example": "bounce", "ann@a.example": "import"}


def test_a_preview_of_another_person_or_changed_by_hand_imports_nothing(shop):
    dev, other = (login(mail.person(n, shop, role="developer")) for n in ("dev", "other"))
    asked = {"tenant": str(shop.pk), "form": "csv", "reason": "", "file": file("a@a.example\n")}
    signed = dev.post(path("import_list"), asked).context["signed"]
    other.post(path("import_list"), {"confirmed": signed})
    dev.post(path("import_list"), {"confirmed": signed + "x"})
    assert not Suppression.objects.exists()


def test_a_viewer_imports_and_undoes_nothing_and_nobody_imports_into_a_foreign_tenant(shop):
    viewer = login(mail.person("vera", shop))
    for name in ("import_list", "undo_many"):
        assert viewer.get(path(name)).status_code == 403
    blue = mail.tenant("blue")
    dev = login(mail.person("dev", shop, role="developer"))
    asked = {"tenant": str(blue.pk), "form": "csv", "reason": "", "file": file("a@a.example\n")}
    page = dev.post(path("import_list"), asked)
    assert "signed" not in page.context


def test_a_file_that_is_no_list_is_refused_beside_its_field(shop):
    dev = login(mail.person("dev", shop, role="developer"))
    asked = {"tenant": str(shop.pk), "form": "ses", "reason": "", "file": file("{}")}
    assert "holds no list" in dev.post(path("import_list"), asked).content.decode()


def test_an_undo_shows_its_count_first_and_stays_within_the_own_tenants(shop):
    blue, now = mail.tenant("blue"), timezone.now()
    for tenant in (shop, blue):
        for i, rule in enumerate(("wrong", "wrong", "right")):
            Suppression.objects.create(
                tenant=tenant, address=f"u{i}@x.test", reason="bounce", rule=rule, site="x.test", created_at=now
            )
    dev = login(mail.person("dev", shop, role="developer"))
    asked = {
        "rule": "wrong", "site": "x.test", "since": f"{now - timedelta(hours=1):%Y-%m-%d %H:%M}",
        "until": f"{now + timedelta(hours=1):%Y-%m-%d %H:%M}",
    }  # fmt: skip
    page = dev.post(path("undo_many"), asked)
    assert page.context["count"] == 2 and Suppression.objects.filter(tenant=shop).count() == 3
    counted = dev.post(path("undo_many"), asked).context["counted"]
    other = dev.post(path("undo_many"), {**asked, "rule": "another", "confirmed": counted})
    assert other.status_code == 200 and other.context["count"] == 0, "a changed form is counted anew"
    assert "2 removed" in dev.post(path("undo_many"), {**asked, "confirmed": counted}, follow=True).content.decode()
    assert Suppression.objects.filter(tenant=shop).count() == 1 and Suppression.objects.filter(tenant=blue).count() == 3
    page = dev.post(path("undo_many"), {**asked, "rule": "", "site": ""})
    assert page.context["count"] is None


def test_an_export_holds_the_own_tenants_rows_alone(shop):
    blue, now = mail.tenant("blue"), timezone.now()
    for tenant, address in ((shop, "mine@x.test"), (blue, "theirs@x.test")):
        Suppression.objects.create(tenant=tenant, address=address, reason="bounce", created_at=now)
    formulas = ("=1+1", "\t=1+1", "\r=1+1", "＝1+1", "@SUM(1)", "-1")
    for n, text in enumerate(formulas):
        Suppression.objects.create(tenant=shop, address=f"{n}@x.test", reason="bounce", detail=text, created_at=now)
    answer = login(mail.person("vera", shop)).get(path("export_list"))
    text = b"".join(answer.streaming_content).decode()
    assert "mine@x.test,bounce" in text and "theirs" not in text
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["detail"] for row in rows[1:]] == [f"'{text}" for text in formulas], "a spreadsheet runs none of them"


def test_the_operator_sees_a_brake_on_the_first_page_and_undoes_it_with_one_action(shop):
    now = timezone.now()
    Suppression.objects.create(
        tenant=shop, address="a@x.test", reason="bounce", site="x.test", category="bad_mailbox", created_at=now
    )
    brake = brakes.pull("x.test", Category.BAD_MAILBOX, 60, "x.test refused <60>.", now - timedelta(minutes=9), now)
    client = login(mail.person("root", operator=True))
    assert "x.test refused &lt;60&gt;." in client.get("/admin/").content.decode()
    url = reverse("admin:deliveries_brake_changelist")
    assert "x.test" in client.get(url).content.decode()
    assert client.get(reverse("admin:deliveries_brake_change", args=[brake.pk])).status_code == 200
    held = Brake.objects.create(tenant=shop, reason="11 of 50", refused=11, since=now, at=now)
    kept = client.post(url, {"action": "confirm", "_selected_action": [str(held.pk)]}, follow=True)
    assert f"{shop} stays held. Undo releases it" in kept.content.decode()
    done = client.post(url, {"action": "undo", "_selected_action": [str(brake.pk)]}, follow=True)
    assert "1 suppressions removed" in done.content.decode()
    assert not Suppression.objects.filter(tenant=shop).exists()
    assert Site.objects.get(name="x.test").suspended_until is None
    assert login(mail.person("dev", shop, role="owner")).get(url).status_code == 403


def test_the_operator_suspends_a_tenant_on_its_page_with_a_reason_and_releases_it_there(shop):
    client = login(mail.person("root", operator=True))
    url, page = reverse("admin:deliveries_tenant_changelist"), reverse("admin:deliveries_tenant_change", args=[shop.pk])
    here = {"index": "0", "_selected_action": str(shop.pk), "on_page": str(shop.pk)}
    assert 'value="suspend"' in client.get(page).content.decode()
    # the form holds nobody: it would do so without a word, and at once whatever date it names
    client.post(page, {"name": shop.name, "suspended_at_0": "2099-01-01", "suspended_at_1": "00:00:00"})
    assert Tenant.objects.get(pk=shop.pk).suspended_at is None
    done = client.post(url, here | {"action": "suspend", "reason": " un\0paid\r\nsince <May>"})
    assert done["Location"] == page, "what was ordered on a page is told there"
    assert Tenant.objects.get(pk=shop.pk).suspended_reason == "Suspended by root: un paid since <May>"
    assert Brake.objects.get(tenant=shop).state == "open"
    assert "was suspended before" in client.post(url, here | {"action": "suspend"}, follow=True).content.decode()
    client.post(url, {"action": "release", "_selected_action": [str(shop.pk)]})
    assert Tenant.objects.get(pk=shop.pk).suspended_at is None
    assert Brake.objects.get(tenant=shop).state == "undone"


def test_an_address_says_which_mail_led_to_it_and_is_taken_off_on_its_own_page(shop):
    row = mail.message(shop, "gone@x.test", status="bounced")
    event = Event.objects.get(message=row, type="email.bounced")
    entry = Suppression.objects.create(
        tenant=shop, address="gone@x.test", reason="bounce", source_event=event.pk, created_at=timezone.now()
    )
    page = reverse("admin:deliveries_suppression_change", args=[entry.pk])
    order = {"index": "0", "action": "remove", "_selected_action": str(entry.pk), "on_page": str(entry.pk)}
    vera, dora = login(mail.person("vera", shop)), login(mail.person("dora", shop, role="developer"))
    assert reverse("admin:deliveries_message_change", args=[row.pk]) in vera.get(page).content.decode()
    assert (
        'value="remove"' not in vera.get(page).content.decode() and 'value="remove"' in dora.get(page).content.decode()
    )
    url = reverse("admin:deliveries_suppression_changelist")
    vera.post(url, order)
    assert Suppression.objects.filter(pk=entry.pk).exists()
    done = dora.post(url, order, follow=True)
    assert "1 removed" in done.content.decode() and done.request["PATH_INFO"] == url, "its page is gone with it"
