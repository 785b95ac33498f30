"""Bodies of finished mails in an S3 store: moved, read, sent again, forgotten, erased; and the store away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client as PanelClient
from django.urls import reverse

from deliveries import erase, prune
from deliveries.accept.repeat import send_again
from deliveries.errors import BadInput
from deliveries.mime import compose, raw
from deliveries.mime.address import parse_address
from deliveries.models import Attachment, DeadObject, Message, MessageContent
from deliveries.objects import Away, Bucket
from deliveries.read import archive
from deliveries.read.contents import of
from deliveries.record import archiving, operator, retention
from deliveries.states import Redact
from mailapi import auth
from tests.fakes import mail
from tests.fakes.house import House, build
from tests.fakes.s3 import Store
from tests.steps.api import Client

pytestmark = pytest.mark.django_db(transaction=True)
FILE = compose.Attachment("bill.txt", "text/plain", b"17 EUR \xff")


@pytest.fixture(scope="module")
def _store() -> Iterator[Store]:
    store = Store().start()
    yield store
    store.stop()


@pytest.fixture
def store(_store: Store, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    settings.BODIES, settings.S3_ENDPOINT, settings.S3_BUCKET = "s3", _store.bucket.endpoint, "bodies"
    settings.S3_REGION, settings.S3_ACCESS_KEY, settings.S3_SECRET_KEY = "us-east-1", "AKID", "secret"
    monkeypatch.setattr(retention, "PAUSE_S", 0)
    monkeypatch.setattr(archiving, "AGE", timedelta(seconds=-60))
    archive.bucket.cache_clear()
    archiving.anew()
    auth.forget()
    yield _store
    archive.bucket.cache_clear()


def moved(house: House, **fields: Any) -> Message:
    (delivery,) = house.send("ann@one.test", **{"attachments": (FILE,), **fields})
    operator.cancel([delivery.id], "test")
    archive_now()
    return Message.objects.get(id=delivery.message_id)


def archive_now() -> int:
    archiving.anew()
    return prune.archive()


def key(message: Message) -> str:
    return f"{message.tenant_id}/{message.id}"


def test_a_finished_mail_is_moved_and_read_from_the_store_by_api_panel_and_who_sends_it_again(store: Store) -> None:
    house = build()
    (waits,) = house.send("bob@one.test")
    message = moved(house, html="<p>Größe</p>", text="Hello", headers=(("X-Order", "17"),))
    assert message.archived_at and key(message) in store.listed()
    assert Message.objects.get(id=waits.message_id).archived_at is None
    row = MessageContent.objects.get(id=message.id)
    assert (row.html, row.text, row.headers) == (None, None, [["X-Order", "17"]])
    assert not Attachment.objects.filter(message_id=message.id).exists()
    api = Client(house.tenant, house.secret, house.domain.name)
    said = api.get(f"/emails/{message.id}").json()
    assert (said["html"], said["text"], said["content_note"]) == ("<p>Größe</p>", "Hello", None)
    (file,) = api.get(f"/emails/{message.id}/attachments").json()["data"]
    assert (file["filename"], file["size"]) == ("bill.txt", 8)
    composed = of(message)
    assert composed is not None and b"X-Order: 17" in composed.composed().octets
    panel = PanelClient()
    panel.force_login(mail.person(f"eve-{message.id}", house.tenant, role="viewer"))
    page = panel.get(reverse("admin:deliveries_message_change", args=[message.id])).content.decode()
    assert "Hello" in page and "bill.txt" in page
    assert "Größe" in panel.get(reverse("admin:deliveries_message_preview", args=[message.id])).content.decode()
    address = reverse("admin:deliveries_message_file", args=[message.id, file["id"]])
    assert b"".join(panel.get(address)) == FILE.content
    (again,) = send_again(message, [parse_address("carl@one.test")], "test")
    assert MessageContent.objects.get(id=again).html == "<p>Größe</p>"
    assert bytes(Attachment.objects.get(message_id=again).content) == FILE.content


def test_a_mail_that_came_whole_comes_back_octet_by_octet(store: Store) -> None:
    house = build()
    octets = f"From: app@{house.domain.name}\r\nTo: a@one.test\r\nSubject: x\r\n\r\nHello \x7f\r\n".encode()
    message = moved(house, raw=raw.read(octets).octets, text=None, attachments=())
    held = archive.fetched(message).content
    assert held is not None and bytes(held.raw) == raw.read(octets).octets


def test_a_second_pass_or_one_that_dies_costs_no_content_and_an_erased_mail_leaves_no_object(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, put = build(), Bucket.put
    asked = iter((lambda: alone(archive_now), lambda: alone(archive_now), _dies))

    def putting(bucket: Bucket, name: str, octets: bytes) -> None:
        put(bucket, name, octets)
        if threading.current_thread() is threading.main_thread():
            next(asked)()

    monkeypatch.setattr(Bucket, "put", putting)
    for message in (moved(house), moved(house)):
        prune.archive()
        held = archive.fetched(message)
        assert held.content is not None and held.content.text == "Thank you." and held.files[0].content == FILE.content
    (delivery,) = house.send("dora@one.test")
    operator.cancel([delivery.id], "test")
    with pytest.raises(KeyboardInterrupt):
        archive_now()
    message = Message.objects.get(id=delivery.message_id)
    assert message.archived_at is None and key(message) in store.listed()
    erase.work(erase.order(house.tenant.id, "dora@one.test", "test"), retention.Time(time.monotonic() + 60))
    monkeypatch.setattr(Bucket, "put", put)
    archive_now()
    assert key(message) not in store.listed() and not DeadObject.objects.exists()


def _dies() -> None:
    raise KeyboardInterrupt


def alone(work: Callable[[], object]) -> None:
    """In a thread with a connection of its own, as another process would."""

    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)


def test_a_store_that_is_away_loses_nothing_and_is_asked_again(store: Store, settings: Any) -> None:
    house = build()
    (delivery,) = house.send("ann@one.test", attachments=(FILE,))
    operator.cancel([delivery.id], "test")
    settings.S3_ENDPOINT = "http://127.0.0.1:1"
    archive.bucket.cache_clear()
    assert archive_now() == 0
    message = Message.objects.get(id=delivery.message_id)
    assert message.archived_at is None and MessageContent.objects.get(id=message.id).text == "Thank you."
    assert Attachment.objects.filter(message_id=message.id).exists()
    settings.S3_ENDPOINT = store.bucket.endpoint
    archive.bucket.cache_clear()
    assert archive_now() == 1 and key(message) in store.listed()
    for read in (lambda row: archive.fetched(row).files, archive.files):  # who read the mail before it was moved
        assert [bytes(f.content) for f in read(copy(message))] == [FILE.content]
    held = archive.fetched(message).content
    assert held is not None and held.text == "Thank you."


def test_what_cannot_be_read_is_said_in_words(store: Store, settings: Any) -> None:
    house = build()
    missing, damaged, away = (moved(house) for _ in range(3))
    store.bucket.delete(key(missing))
    store.bucket.put(key(damaged), b"\x1f\x8bnonsense")
    api = Client(house.tenant, house.secret, house.domain.name)
    for message, words in ((missing, "missing"), (damaged, "damaged")):
        said = api.get(f"/emails/{message.id}").json()
        assert said["text"] is None and words in said["content_note"]
        with pytest.raises(BadInput, match=words):
            send_again(message, [parse_address("b@one.test")], "test")
    settings.S3_ENDPOINT = "http://127.0.0.1:1"
    archive.bucket.cache_clear()
    said = api.get(f"/emails/{away.id}")
    assert said.status_code == 200 and "cannot be read now" in said.json()["content_note"]
    panel = PanelClient()
    panel.force_login(mail.person(f"eve-{away.id}", house.tenant, role="viewer"))
    page = panel.get(reverse("admin:deliveries_message_change", args=[away.id])).content.decode()
    assert "cannot be read now" in page


def test_retention_and_erasing_delete_the_objects_once_the_store_is_back(store: Store, settings: Any) -> None:
    house = build()
    old, erased = moved(house), moved(house)
    settings.KEEP_MAIL_DAYS = 0
    row = erase.order(house.tenant.id, "ann@one.test", "test")
    settings.S3_ENDPOINT = "http://127.0.0.1:1"
    archive.bucket.cache_clear()
    erase.work(row, retention.Time(time.monotonic() + 60))
    assert not Message.objects.filter(id__in=[old.id, erased.id]).exists()
    later = build()
    (delivery,) = later.send("zoe@one.test")
    operator.cancel([delivery.id], "test")
    assert archive_now() == 0 and DeadObject.objects.filter(key__in=[key(old), key(erased)]).count() == 2
    settings.S3_ENDPOINT = store.bucket.endpoint
    archive.bucket.cache_clear()
    archive_now()
    assert not {key(old), key(erased)} & set(store.listed()) and not DeadObject.objects.exists()
    message = Message.objects.get(id=delivery.message_id)
    assert key(message) in store.listed()
    prune.retain(datetime.now(UTC) + timedelta(days=60))
    archive_now()
    assert key(message) not in store.listed()
    assert archive.fetched(Message.objects.get(id=message.id)).content is None


def test_what_is_to_be_redacted_never_reaches_the_store(store: Store) -> None:
    house = build()
    message = moved(house, redact=Redact.CONTENT)
    assert message.archived_at is None and key(message) not in store.listed()
    prune.redact()
    assert Message.objects.get(id=message.id).redacted_at


def test_the_store_itself_answers_what_is_not_there_and_what_is_wrong(store: Store) -> None:
    assert store.bucket.get("no/such") is None
    store.bucket.delete("no/such")
    store.bucket.put("a/b", b"octets" * 1000)
    assert store.bucket.get("a/b") == b"octets" * 1000
    other = type(store.bucket)(store.bucket.endpoint, "no-such-bucket", "us-east-1", "AKID", "secret")
    with pytest.raises(Away, match="404"):
        other.get("a")
    with pytest.raises(Away, match="404"):
        other.put("a", b"x")
