"""Attachments by URL: fetched at accept, before the transaction, from public hosts only."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.db import connection

from deliveries.accept import remote
from deliveries.accept.turns import Turns
from deliveries.models import Attachment, Message
from tests.steps.api import message_count

pytestmark = pytest.mark.django_db


class Host(ThreadingHTTPServer):
    """A host of files on loopback; `asked` are the paths in order, `most` how many were asked for at a time."""

    daemon_threads = True

    def __init__(self):
        self.asked, self.busy, self.most, self.lock = [], 0, 0, threading.Lock()
        super().__init__(("127.0.0.1", 0), Files)

    def url(self, path):
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Files(BaseHTTPRequestHandler):
    def do_GET(self):
        host = self.server
        with host.lock:
            host.asked.append(self.path)
            host.busy += 1
            host.most = max(host.most, host.busy)
        try:
            self._answer()
        finally:
            with host.lock:
                host.busy -= 1

    def _answer(self):
        path = self.path
        if path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/a.pdf")
            self.end_headers()
            return
        if path.startswith("/gone"):
            self.send_error(404)
            return
        if path.startswith("/slow"):
            time.sleep(0.3)
        if path.startswith("/never"):
            self.connection.settimeout(30)
            self.connection.recv(1)
            return
        octets = b"%PDF " + path.encode()
        if path.startswith("/mb"):
            octets = b"x" * (int(path.removeprefix("/mb").partition("?")[0]) << 20)
        self.send_response(200)
        self.send_header("Content-Type", "application/pdf" if path.endswith(".pdf") else "application/octet-stream")
        if path.startswith("/gzip"):
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(octets)

    def log_message(self, *args):
        pass


@pytest.fixture
def host(settings):
    settings.WEBHOOK_ALLOW_PRIVATE = True
    server = Host()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def faults(answer):
    assert answer.status_code == 422, answer.json()
    return {(f["index"], f["field"], f["code"]) for f in answer.json()["errors"]}


def test_a_file_is_fetched_and_frozen(api, host):
    answer = api.send(
        attachments=[
            {"path": host.url("/in%20voice.pdf?sig=1")},
            {"path": host.url("/x"), "filename": "b.png", "content_id": "logo"},
            {"filename": "c.txt", "content": "YQ=="},
        ]
    )
    assert answer.status_code == 200, answer.json()
    files = Attachment.objects.filter(message_id=answer.json()["id"]).order_by("position")
    assert [(f.filename, f.content_type, bytes(f.content), f.content_id) for f in files] == [
        ("in voice.pdf", "application/pdf", b"%PDF /in%20voice.pdf?sig=1", None),
        ("b.png", "image/png", b"%PDF /x", "logo"),
        ("c.txt", "text/plain", b"a", None),
    ]
    assert Message.objects.get(id=answer.json()["id"]).attachment_count == 3


def test_no_transaction_is_open_while_a_file_is_fetched(api, host, monkeypatch):
    seen = []
    real = remote.fetch_files
    monkeypatch.setattr(
        "mailapi.views.emails.fetch_files", lambda *a: (seen.append(len(connection.savepoint_ids)), real(*a))[1]
    )
    assert api.send(attachments=[{"path": host.url("/a.pdf")}]).status_code == 200
    assert seen == [0]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/gone", "the host answered 404"),
        ("/moved", "redirects are not followed"),
        ("/gzip", "compressed"),
        ("/mb41", "MB"),
    ],
)
def test_what_cannot_be_had_names_the_file_and_the_reason(api, host, path, why):
    answer = api.send(attachments=[{"filename": "a", "content": ""}, {"filename": "b", "path": host.url(path)}])
    assert faults(answer) == {(None, "attachments[1].path", "not_fetched")}
    assert answer.json()["name"] == "invalid_attachment" and why in answer.json()["errors"][0]["message"]
    assert message_count(api) == 0


def test_a_host_that_never_answers_ends_in_time(api, host, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.5)
    assert faults(api.send(attachments=[{"path": host.url("/never")}])) == {
        (None, "attachments[0].path", "not_fetched")
    }


def test_all_files_together_are_bounded(api, host):
    answer = api.send(attachments=[{"path": host.url(f"/mb15?{i}")} for i in range(3)])
    assert {code for _, _, code in faults(answer)} == {"not_fetched"}
    # one file, which every mail of the batch would store
    mails = [api.mail(attachments=[{"path": host.url("/mb15")}]) for _ in range(3)]
    answer = api.post("/emails/batch", mails)
    assert faults(answer) == {(2, "attachments[0].path", "not_fetched")}
    assert host.asked.count("/mb15") == 1 and message_count(api) == 0


def test_merge_counts_a_file_for_each_recipient(api, host):
    to = ["a@simulator.test", "b@simulator.test", "c@simulator.test"]
    answer = api.send(to=to, merge={to[0]: {"A": 1}}, attachments=[{"path": host.url("/mb15")}])
    assert faults(answer) == {(None, "attachments[0].path", "not_fetched")}


def test_a_batch_fetches_a_few_at_a_time_and_each_url_once(api, host):
    mails = [api.mail(attachments=[{"path": host.url(f"/slow{i % 12}.pdf")}]) for i in range(24)]
    answer = api.post("/emails/batch", mails)
    assert answer.status_code == 200 and message_count(api) == 24
    assert sorted(host.asked) == sorted({f"/slow{i}.pdf" for i in range(12)})
    assert 1 < host.most <= remote.PARALLEL


def test_a_permissive_batch_sends_what_it_has(api, host):
    mails = [api.mail(attachments=[{"path": host.url(path)}]) for path in ("/a.pdf", "/gone", "/b.pdf")]
    answer = api.post("/emails/batch", mails, HTTP_X_BATCH_VALIDATION="permissive").json()
    assert len(answer["data"]) == 2 and [f["index"] for f in answer["errors"]] == [1]


def test_a_replay_needs_the_file_no_more(api, host):
    mail = api.mail(attachments=[{"path": host.url("/a.pdf")}])
    once = {"HTTP_IDEMPOTENCY_KEY": "k"}
    first = api.post("/emails", mail, **once)
    batch = api.post("/emails/batch", [mail, mail], **once)
    host.asked.clear()
    again, batch_again = api.post("/emails", mail, **once), api.post("/emails/batch", [mail, mail], **once)
    assert again.json() == first.json() and again.headers["Idempotent-Replayed"] == "true"
    assert batch_again.json() == batch.json() and host.asked == [] and message_count(api) == 3


def test_a_replayed_batch_tells_the_ids_mail_by_mail(api, host):
    to = ["a@simulator.test", "b@simulator.test"]
    mails = [api.mail(to=to, merge={to[0]: {"A": 1}}, attachments=[{"path": host.url("/a.pdf")}]), api.mail()]
    first = api.post("/emails/batch", mails, HTTP_IDEMPOTENCY_KEY="k").json()
    assert [len(item.get("ids", [1])) for item in first["data"]] == [2, 1]
    assert api.post("/emails/batch", mails, HTTP_IDEMPOTENCY_KEY="k").json() == first


def test_too_many_requests_that_fetch_are_told_to_come_again(api, host, monkeypatch):
    monkeypatch.setattr(remote, "_turns", Turns(1, "attachments", "with attachments by URL"))
    with remote._turns.taken():
        answer = api.send(attachments=[{"path": host.url("/a.pdf")}])
    assert answer.status_code == 429 and answer.headers["Retry-After"] and host.asked == []
    assert api.send(attachments=[{"path": host.url("/a.pdf")}]).status_code == 200


@pytest.mark.parametrize(
    ("file", "field", "code"),
    [
        ({}, "attachments[0].content", "missing_required_field"),
        ({"content": "", "path": "https://example.com/a"}, "attachments[0].content", "invalid_attachment"),
        ({"path": "http://127.0.0.1/a"}, "attachments[0].path", "invalid_url"),
        ({"path": "http://169.254.169.254/latest/meta-data"}, "attachments[0].path", "invalid_url"),
        ({"path": "http://[::ffff:10.0.0.1]/"}, "attachments[0].path", "invalid_url"),
        ({"path": "http://0x7f.1/"}, "attachments[0].path", "invalid_url"),
        ({"path": "file:///etc/passwd"}, "attachments[0].path", "invalid_url"),
        ({"path": "https://user:pw@example.com/a"}, "attachments[0].path", "invalid_url"),
        ({"path": "https://example.com/\r\nX: y"}, "attachments[0].path", "invalid_url"),
        ({"path": 5}, "attachments[0].path", "wrong_type"),
    ],
)
def test_a_url_that_is_never_fetched_is_refused_by_its_form(api, settings, file, field, code):
    settings.WEBHOOK_ALLOW_PRIVATE = False
    answer = api.send(attachments=[{"filename": "a", **file}])
    assert (None, field, code) in faults(answer), answer.json()
    assert message_count(api) == 0


def test_a_public_name_that_leads_inside_is_not_connected_to(api, host, settings, monkeypatch):
    settings.WEBHOOK_ALLOW_PRIVATE = False

    async def inside(name, port):
        return ["127.0.0.1"]

    monkeypatch.setattr("deliveries.fetch._system_resolve", inside)
    answer = api.send(attachments=[{"path": host.url("/a.pdf").replace("127.0.0.1", "files.example.com")}])
    assert faults(answer) == {(None, "attachments[0].path", "not_fetched")} and host.asked == []


def test_a_file_that_is_gone_is_no_conflict_of_a_new_key(api, host):
    assert api.send(http={"HTTP_IDEMPOTENCY_KEY": "k"}, attachments=[{"path": host.url("/gone")}]).status_code == 422
    # nothing is remembered of what was not stored
    assert api.send(http={"HTTP_IDEMPOTENCY_KEY": "k"}).status_code == 200
