"""`manage.py up` as a person runs it: a start, a mail, a stop; a start again; what is left after the worst end."""

import json
import os
import shutil
import signal
import smtplib
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_INHERITED = ("DATABASE_URL", "BROKER_URL", "REDIS_URL", "SECRET_KEY", "FIELD_KEYS", "VERP_KEYS", "MAIL_ROUTE")
PATIENCE_S = 180  # this machine may be busy; nothing here is a measurement


def environ():
    kept = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED and not k.startswith("SANDBOX_")}
    return kept | {"DELIVER_PROCESSES": "1"}


class Up:
    def __init__(self, var):
        self.var = var
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--port", "0", "--var", str(var)],
            cwd=ROOT,
            env=environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def facts(self):
        """up.json of this very process; one that was killed has left its own."""
        until = time.monotonic() + PATIENCE_S
        while (facts := self.written()).get("pid") != self.process.pid:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until, "no up.json"
            time.sleep(0.1)
        return facts

    def written(self):
        try:
            return json.loads((self.var / "up.json").read_text())
        except FileNotFoundError:
            return {}

    def end(self, number):
        self.process.send_signal(number)
        return self.ended()

    def ended(self):
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@pytest.fixture
def var():
    """Outside pytest's folder, which is closed to the user that a root's Postgres runs as."""
    folder = Path(tempfile.mkdtemp(prefix="mailapi-up-"))
    folder.chmod(0o711)
    yield folder / "var"
    shutil.rmtree(folder)


@pytest.fixture
def up(var):
    started = []

    def start():
        started.append(Up(var))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)
    assert gone(var)


def belonging_to(var):
    """Processes whose words or environment name this var folder, with their words."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words, env = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
            except OSError:
                continue
            if str(var).encode() in words + env:
                found[int(entry.name)] = words.replace(b"\0", b" ").decode()
    return found


def gone(var):
    until = time.monotonic() + 60
    while belonging_to(var) and time.monotonic() < until:
        time.sleep(0.1)
    return not belonging_to(var)


def call(facts, path, body=None):
    request = urllib.request.Request(
        facts["url"] + path,
        json.dumps(body).encode() if body else None,
        {"Authorization": "Bearer " + facts["api_key"], "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def deliver_one(facts):
    mail = {"from": facts["sender"], "to": "delivered@simulator.test", "subject": "up", "text": "hello"}
    delivered(facts, call(facts, "/emails", mail)["id"])


def submit_one(facts):
    host, port = facts["smtp"]["submission"].rsplit(":", 1)
    with smtplib.SMTP(host, int(port), timeout=60) as client:
        client.starttls(context=ssl.create_default_context(cafile=facts["smtp"]["ca_file"]))
        client.login("apikey", facts["api_key"])
        client.mail(facts["sender"])
        client.rcpt("delivered@simulator.test")
        code, said = client.data(f"From: {facts['sender']}\r\nSubject: up\r\n\r\nhello\r\n".encode())
    assert code == 250, said
    delivered(facts, said.decode().split()[-1])


def delivered(facts, posted):
    until = time.monotonic() + PATIENCE_S
    while (state := call(facts, f"/emails/{posted}")["last_event"]) != "delivered":
        assert time.monotonic() < until, state
        time.sleep(0.1)


#: each with a word of its command line
PARTS = {
    "web": " granian ", "jobs": " -Q jobs ", "beat": " beat ", "deliver1": " -Q deliver ", "smtpd": " smtpd ",
    "lab": " deliveries.sandbox ",
}  # fmt: skip


def parts(var, word):
    """The processes with that word that stand right under a guard."""
    found = belonging_to(var)
    guards = {pid for pid, words in found.items() if "guard.py" in words}
    return [pid for pid, words in found.items() if word in f"{words} " and pid not in guards and parent(pid) in guards]


def parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def answers(facts):
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            return call(facts, "/health/ready")
        except OSError:  # refused, or 503
            time.sleep(0.2)
    pytest.fail("not every part answers again")


def test_one_command_delivers_a_mail_and_stops_without_a_trace_and_starts_again(up, var):
    first = up()
    facts = first.facts()
    deliver_one(facts)
    submit_one(facts)
    assert (var / "up.json").stat().st_mode & 0o777 == 0o600
    secrets = json.loads((var / "secrets.json").read_text())
    words = " ".join(belonging_to(var).values())
    assert not [s for name, s in secrets.items() if s in words], "a secret stands in a command line"
    found = subprocess.run(
        [sys.executable, "manage.py", "showmigrations", "deliveries"],
        cwd=ROOT,
        env=environ() | {"MAILAPI_VAR": str(var)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0 and "[X] 0001" in found.stdout, found.stderr
    code, out, err = first.end(signal.SIGINT)
    assert (code, err) == (0, "") and f"Bearer {facts['api_key']}" in out
    assert belonging_to(var) == {} and not (var / "up.json").exists()

    second = up()
    again = second.facts()
    assert again["api_key"] == facts["api_key"] and again["database_url"] == facts["database_url"]
    assert call(again, "/emails")["data"], "what was stored is still there"
    second.end(signal.SIGKILL)
    assert gone(var)

    third = up()
    facts = third.facts()
    for name, word in PARTS.items():
        (part,) = parts(var, word)
        os.kill(part, signal.SIGKILL)
        until = time.monotonic() + PATIENCE_S
        while parts(var, word) in ([], [part]):
            assert third.process.poll() is None, third.ended()
            assert time.monotonic() < until, f"{name} was not started again"
            time.sleep(0.1)
    answers(facts)
    deliver_one(facts)
    submit_one(facts)
    # its own words and environment it has overwritten
    (guard,) = (pid for pid, words in belonging_to(var).items() if "guard.py" in words and "valkey-server" in words)
    os.kill(int(Path(f"/proc/{guard}/task/{guard}/children").read_text()), signal.SIGKILL)
    code, _, err = third.ended()
    assert code == 1 and "valkey was killed by signal 9 (SIGKILL)" in err.splitlines()[-1]
    assert sorted(PARTS) == sorted({line.split()[1] for line in err.splitlines() if "; started again" in line}), err
    assert belonging_to(var) == {}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LEASE_S", "soon", "LEASE_S"),
        ("MAIL_ROUTES", '{"example.org": {"hots": "a"}}', "MAIL_ROUTES['example.org'].hots: unknown"),
        ("VERP_KEYS", "1:short", "VERP_KEYS"),
        ("DELIVER_PROCESSES", "many", "DELIVER_PROCESSES='many' is not a number"),
    ],
)
def test_a_setting_that_is_no_good_ends_it_before_anything_is_started(var, name, value, said):
    words = [sys.executable, "manage.py", "up", "--port", "0", "--var", str(var)]
    done = subprocess.run(
        words, cwd=ROOT, env=environ() | {name: value}, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Starting" not in done.stdout and not (var / "postgres").exists() and not (var / "valkey").exists()
