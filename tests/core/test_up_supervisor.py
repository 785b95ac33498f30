"""The supervisor and its guards, with small stubs for parts. Everything is a real process."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mailapi.up.supervisor import Child, ChildDied, Supervisor
from mailapi.up.words import Refusal

ROOT = Path(__file__).resolve().parents[2]

#: writes its name into a journal when it is told to stop
POLITE = """
import signal, sys, time
def stop(*_):
    open(sys.argv[2], "a").write(sys.argv[1] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True: time.sleep(60)
"""
#: will not hear of it, and has a child in a session of its own that will not either
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(0, flush=True); time.sleep(600)"
grandchild = subprocess.Popen([sys.executable, "-c", code, sys.argv[1]], start_new_session=True, stdout=subprocess.PIPE)
grandchild.stdout.readline()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def supervisor(tmp_path):
    supervisor = Supervisor(tmp_path)
    yield supervisor
    supervisor.stop()


def child(tmp_path, name, code, *words, **more):
    log = tmp_path / f"{name}.log"
    more.setdefault("ready", lambda: log.exists() and "ready" in log.read_text())
    return Child(name=name, argv=(sys.executable, "-c", code, *words), env=dict(os.environ), cwd=tmp_path, **more)


def with_word(word):
    """Processes that have `word` among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if word.encode() in words and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def gone(word, within_s=30):
    until = time.monotonic() + within_s
    while with_word(word) and time.monotonic() < until:
        time.sleep(0.05)
    return not with_word(word)


def test_parts_are_stopped_stage_by_stage(tmp_path, supervisor):
    journal = tmp_path / "journal"
    for name, stage in (("store", 2), ("door", 0), ("worker", 1)):
        supervisor.start(child(tmp_path, name, POLITE, name, str(journal), stage=stage))
    supervisor.wait_ready(["store", "door", "worker"], 60)
    supervisor.stop()
    assert journal.read_text().split() == ["door", "worker", "store"]


def test_a_death_is_told_with_the_code_and_the_last_lines(tmp_path, supervisor):
    supervisor.start(
        child(tmp_path, "frail", "print('first'); print('out of cheese'); raise SystemExit(3)", ready=None)
    )
    with pytest.raises(ChildDied, match="frail exited with 3: out of cheese") as death:
        supervisor.watch()
    assert death.value.last_lines == ["first", "out of cheese"]


def test_lines_of_an_earlier_start_are_not_told_again(tmp_path, supervisor):
    (tmp_path / "frail.log").write_text("long ago\n")
    supervisor.start(child(tmp_path, "frail", "raise SystemExit(3)", ready=None))
    with pytest.raises(ChildDied) as death:
        supervisor.watch()
    assert death.value.last_lines == []


def test_a_part_that_was_killed_is_told_so_without_its_last_words_which_were_about_something_else(tmp_path, supervisor):
    code = "import os; print('all is well', flush=True); os.kill(os.getpid(), {})"
    supervisor.start(child(tmp_path, "shot", code.format(9), ready=None))
    with pytest.raises(ChildDied, match=r"^shot was killed by signal 9 \(SIGKILL\)") as death:
        supervisor.watch()
    assert "all is well" not in str(death.value) and death.value.last_lines == []


def test_a_part_that_another_signal_ended_is_told_with_its_last_words(tmp_path, supervisor):
    code = "import os; print('bad pointer', flush=True); os.kill(os.getpid(), 11)"
    supervisor.start(child(tmp_path, "torn", code, ready=None))
    with pytest.raises(ChildDied, match=r"^torn was ended by signal 11 \(SIGSEGV\): bad pointer$"):
        supervisor.watch()


def test_a_part_that_may_start_again_does_so_after_growing_pauses_and_is_given_up_in_the_end(
    tmp_path, supervisor, monkeypatch, capfd
):
    lives = tmp_path / "lives"
    monkeypatch.setattr("mailapi.up.supervisor.AGAIN_S", (0.01, 0.02, 0.03))
    code = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(70)"
    supervisor.start(child(tmp_path, "frail", code, str(lives), ready=None, again=True))
    with pytest.raises(ChildDied, match="frail exited with 70"):
        supervisor.watch()
    assert lives.read_text() == "xxxx"
    assert re.findall(r"started again in ([0-9.]+) s", capfd.readouterr().err) == ["0.01", "0.02", "0.03"]


def test_one_that_had_lived_for_a_while_starts_again_at_once_however_often(tmp_path, supervisor, monkeypatch, capfd):
    lives = tmp_path / "lives"
    monkeypatch.setattr("mailapi.up.supervisor.AGAIN_S", ())
    monkeypatch.setattr("mailapi.up.supervisor.LIVED_S", 0)
    code = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(70)"
    supervisor.start(child(tmp_path, "frail", code, str(lives), ready=None, again=True))
    supervisor.watching = True
    while not lives.exists() or len(lives.read_text()) < 3:
        supervisor.check()
        time.sleep(0.02)
    assert "frail exited with 70; started again, see" in capfd.readouterr().err


def test_a_part_that_dies_while_all_are_started_ends_the_start(tmp_path, supervisor):
    supervisor.start(child(tmp_path, "frail", "raise SystemExit(70)", ready=lambda: False, again=True))
    with pytest.raises(ChildDied, match="frail exited with 70"):
        supervisor.wait_ready(["frail"], 60)


def test_a_program_that_does_not_exist_is_one_line(tmp_path, supervisor):
    supervisor.start(Child(name="absent", argv=("/no/such/program",), env={}, cwd=tmp_path))
    with pytest.raises(ChildDied, match="absent exited with 127: /no/such/program: No such file or directory"):
        supervisor.watch()


def test_a_part_that_never_answers_is_named(tmp_path, supervisor):
    supervisor.start(child(tmp_path, "mute", "import time; time.sleep(600)", ready=lambda: False))
    with pytest.raises(Refusal, match="mute did not answer"):
        supervisor.wait_ready(["mute"], 0.1)


def test_a_part_that_will_not_stop_is_killed_with_all_its_children(tmp_path, supervisor):
    word = f"stubborn-{tmp_path.name}-{os.getpid()}"
    supervisor.start(child(tmp_path, "stubborn", STUBBORN, word, stop_s=0.2))
    supervisor.wait_ready(["stubborn"], 60)
    assert len(with_word(word)) == 3  # the guard, the part, its child
    supervisor.stop()
    assert with_word(word) == []


def test_a_command_answers_with_its_output_and_its_failure_is_its_last_line(tmp_path, supervisor):
    fine = child(tmp_path, "fine", "import sys; print('answer'); print('noise', file=sys.stderr)")
    assert supervisor.run_once(fine, 60) == "answer\n"
    with pytest.raises(Refusal, match=r"^bad: no such key$"):
        supervisor.run_once(child(tmp_path, "bad", "raise SystemExit('no such key')"), 60)
    checks = "raise SystemExit('ERRORS:\\n?: (x.E1) KEY is empty.\\n\\tHINT: Make one.\\n\\nOne issue')"
    with pytest.raises(Refusal, match=r"^bad: \(x\.E1\) KEY is empty\.$"):
        supervisor.run_once(child(tmp_path, "bad", checks), 60)


def test_a_log_is_for_its_owner_only(tmp_path, supervisor):
    supervisor.start(child(tmp_path, "quiet", POLITE, "quiet", str(tmp_path / "journal")))
    assert (tmp_path / "quiet.log").stat().st_mode & 0o777 == 0o600


def test_a_supervisor_that_is_killed_leaves_nothing(tmp_path):
    word = f"orphan-{tmp_path.name}-{os.getpid()}"
    script = f"""
import os, pathlib, sys
from mailapi.up.supervisor import Child, Supervisor
logs = pathlib.Path({str(tmp_path)!r})
supervisor = Supervisor(logs)
supervisor.start(Child("stubborn", (sys.executable, "-c", {STUBBORN!r}, {word!r}), dict(os.environ), logs, grace_s=0.2,
                       ready=lambda: "ready" in (logs / "stubborn.log").read_text()))
supervisor.wait_ready(["stubborn"], 60)
print("up", flush=True)
supervisor.watch()
"""
    boss = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    assert boss.stdout.readline() == b"up\n"
    assert len(with_word(word)) == 3
    boss.kill()
    boss.wait()
    boss.stdout.close()
    assert gone(word)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_for_a_stop_even_where_the_shell_had_it_ignored(tmp_path, number):
    script = f"""
import pathlib, signal
from mailapi.up.supervisor import Supervisor
from mailapi.up.words import Stopped
supervisor = Supervisor(pathlib.Path({str(tmp_path)!r}))
supervisor.listen()
print("up", flush=True)
try:
    supervisor.watch()
except Stopped:
    print("asked to stop", flush=True)
"""
    ignoring = (
        f"import os, signal, sys; signal.signal({int(number)}, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    boss = subprocess.Popen(
        [sys.executable, "-c", ignoring, sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert boss.stdout.readline() == b"up\n"
    boss.send_signal(number)
    assert boss.communicate(timeout=60)[0] == b"asked to stop\n"
