"""What `up` keeps in its var folder, and how other commands find the parts through it."""

import json
import os
import socket

import pytest

from mailapi.up import addresses, bootstrap, discover, files, main, pip_wheel, postgres, stack
from mailapi.up.stack import PORTS, Address, Plan
from mailapi.up.words import Refusal


@pytest.fixture
def var(tmp_path):
    files.make_var(tmp_path / "var")
    return tmp_path / "var"


def mode(path):
    return path.stat().st_mode & 0o777


def test_secrets_are_made_once_and_only_their_owner_reads_them(var):
    first = files.keep_secrets(var)
    assert mode(var / files.SECRETS) == 0o600
    assert files.keep_secrets(var) == first
    assert first["api_key"].startswith("re_") and len(first["api_key"]) == 3 + 43


def test_a_secrets_file_that_was_opened_up_is_closed_again(var):
    files.keep_secrets(var)
    (var / files.SECRETS).chmod(0o644)
    files.keep_secrets(var)
    assert mode(var / files.SECRETS) == 0o600


def test_a_secret_that_is_missing_is_added_and_the_others_stay(var):
    files.write_private(var / files.SECRETS, json.dumps({"api_key": "re_mine"}))
    kept = files.keep_secrets(var)
    assert kept["api_key"] == "re_mine" and kept["FIELD_KEYS"]


def test_a_broken_secrets_file_is_refused_and_not_overwritten(var):
    (var / files.SECRETS).write_text("{")
    with pytest.raises(Refusal, match="not JSON"):
        files.keep_secrets(var)
    assert (var / files.SECRETS).read_text() == "{"


def test_a_var_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refusal, match="cannot write to") as refused:
        files.make_var(tmp_path / "file")
    assert "\n" not in str(refused.value)


def test_ports_stay_the_same_while_they_are_free(var):
    first = files.keep_ports(var, PORTS)
    assert len(set(first.values())) == len(PORTS)
    assert files.keep_ports(var, PORTS) == first


def test_a_port_that_somebody_took_is_replaced(var):
    first = files.keep_ports(var, PORTS)
    with socket.create_server(("127.0.0.1", first["lab"])):
        second = files.keep_ports(var, PORTS)
    assert second["lab"] != first["lab"] and second["postgres"] == first["postgres"]


def test_nonsense_in_the_ports_file_is_replaced(var):
    files.write_private(var / files.PORTS, '{"postgres": "x", "valkey": -1, "lab": 99999999, "smtpd_inbound": null}')
    assert all(0 < port < 65536 for port in files.keep_ports(var, PORTS).values())


def test_a_second_up_on_the_same_var_is_refused(var):
    with files.lock_var(var):
        assert files.is_running(var)
        with pytest.raises(Refusal, match=f"another .* {os.getpid()}"):
            files.lock_var(var)
    assert not files.is_running(var)


def plan(var, **more):
    given = {"database_url": None, "broker_url": None, "redis_url": None, "mail_route": "sandbox"} | more
    web = Address("127.0.0.1", 8000)
    return Plan(var=var, web=web, ports=files.keep_ports(var, PORTS), secrets=files.keep_secrets(var), **given)


SEEDED = {"api_key": "re_x", "sender": "a@b", "admin": {"username": "u", "password": "p"}, "sandbox_domain": "s.test"}


def test_other_commands_find_what_up_runs_and_nothing_once_it_has_ended(var, monkeypatch):
    for name in ("DATABASE_URL", "BROKER_URL", "REDIS_URL", "SECRET_KEY", "FIELD_KEYS", "VERP_KEYS", "SANDBOX_SMTP"):
        monkeypatch.delenv(name, raising=False)
    ours = plan(var)
    files.write_private(var / files.UP, json.dumps(main.up_facts(ours, SEEDED)))
    with files.lock_var(var):
        found = discover.environ_from_up(var)
    told = ours.environ("command")
    assert found.pop("SANDBOX_DOMAIN") == SEEDED["sandbox_domain"]
    assert {name: told[name] for name in found} == found
    assert {"DATABASE_URL", "BROKER_URL", "SECRET_KEY", "FIELD_KEYS", "VERP_KEYS", "SANDBOX_SMTP"} <= set(found)
    assert discover.environ_from_up(var) == {}


def test_up_json_has_every_field_that_its_readers_were_promised(var):
    facts = main.up_facts(plan(var), SEEDED)
    promised = {"version", "url", "api_key", "sender", "admin", "smtp", "sandbox", "database_url", "broker_url"}
    assert promised <= set(facts)
    assert set(facts["admin"]) == {"url", "username", "password"}
    assert {"inbound", "submission"} <= set(facts["smtp"]) and {"domain", "smtp"} <= set(facts["sandbox"])


def test_what_the_user_has_set_wins(var, monkeypatch):
    monkeypatch.setenv("DRAIN_S", "3")
    monkeypatch.setenv("SECRET_KEY", "mine")
    told = plan(var, database_url="postgres://u:p@h/n").environ("web")
    assert (told["DRAIN_S"], told["SECRET_KEY"], told["MAILAPI_ROLE"]) == ("3", "mine", "web")
    assert told["DATABASE_URL"] == os.environ.get("DATABASE_URL", "postgres://u:p@h/n")


def test_a_database_url_reaches_psql_through_the_environment_only():
    env = addresses.libpq_environ("postgres://us%40er:p%2Fw@db:6000/name?sslmode=require")
    assert (env["PGUSER"], env["PGPASSWORD"], env["PGHOST"], env["PGPORT"]) == ("us@er", "p/w", "db", "6000")
    assert (env["PGDATABASE"], env["PGSSLMODE"]) == ("name", "require")


@pytest.mark.parametrize("url", ["mysql://h/n", "postgres://h:x/n", "postgres://h"])
def test_a_database_url_that_is_none_is_refused(url):
    with pytest.raises(Refusal, match="DATABASE_URL"):
        addresses.libpq_environ(url)


def test_a_pid_file_of_a_process_that_is_no_postgres_of_ours_is_removed(tmp_path):
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}\n")
    postgres.clear_stale_pid(tmp_path)
    assert not (tmp_path / "postmaster.pid").exists()


def test_a_cluster_of_another_major_is_refused_and_left_alone(tmp_path):
    (tmp_path / "PG_VERSION").write_text("16\n")
    with pytest.raises(Refusal, match="made by Postgres 16"):
        postgres.refuse_other_major(tmp_path)


def test_the_stamp_changes_with_the_requirements_and_with_python(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("a==1\n")
    first = bootstrap.stamp_of([file], (3, 11))
    assert bootstrap.stamp_of([file], (3, 11)) == first != bootstrap.stamp_of([file], (3, 12))
    file.write_text("a==2\n")
    assert bootstrap.stamp_of([file], (3, 11)) != first


def test_pins_that_are_not_installed_are_named_and_other_platforms_are_not(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text(
        "django==0.1 \\\n    --hash=sha256:00\n    # via x\nno-such-package==1 \\\n"
        "other==1 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
    )
    assert bootstrap.missing([file]) == ["django==0.1", "no-such-package==1"]


def test_this_interpreter_has_what_is_pinned():
    assert bootstrap.missing([bootstrap.SERVICE, bootstrap.TESTS]) == []


def test_pips_wheel_is_found_on_an_index_page_by_its_exact_name():
    page = f'<a href="pip-1.0-py3-none-any.whl">x</a><a href="../../p/{pip_wheel.WHEEL}#sha256=00">x</a>'
    assert pip_wheel.link_to_wheel(page, "https://index.test/simple/pip/") == f"https://index.test/p/{pip_wheel.WHEEL}"
    assert pip_wheel.link_to_wheel("<a href='other.whl'>", "https://index.test/simple/pip/") is None


def test_a_wheel_with_another_hash_is_never_used(tmp_path, monkeypatch):
    folder = tmp_path / "pip"
    folder.mkdir()
    (folder / pip_wheel.WHEEL).write_bytes(b"not pip")
    monkeypatch.setattr(pip_wheel, "configured", lambda: {"index-url": tmp_path.as_uri()})
    with pytest.raises(Refusal, match="no ensurepip"):
        pip_wheel.fetch(tmp_path)
    assert not (tmp_path / pip_wheel.WHEEL).exists()


def test_the_lab_keeps_what_it_accepted_where_the_panel_looks_for_it(var, monkeypatch):
    monkeypatch.delenv("SANDBOX_SPOOL", raising=False)
    child = stack.lab(plan(var))
    assert child.argv[child.argv.index("--spool") + 1] == child.env["SANDBOX_SPOOL"] == str(var / "sandbox")


@pytest.mark.parametrize("count", ["many", "0", "-1", "65", "1e9", "9" * 5000])
def test_a_number_of_deliver_processes_that_makes_no_sense_is_refused(var, monkeypatch, count):
    monkeypatch.setenv("DELIVER_PROCESSES", count)
    with pytest.raises(Refusal, match=r"^DELIVER_PROCESSES="):
        stack.deliver(plan(var))
