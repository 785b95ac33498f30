"""Makes .venv with what requirements.txt pins, once, and goes on inside it. Standard library only.

Order of use: `enter(tests)` before `up` and `test`; it returns inside an interpreter that has everything, or replaces
this process by one. `enter_if_made()` before every other command.

A stamp in .venv holds the hash of the requirements and the Python version; where the running interpreter has
everything already (a container image, a virtual environment of one's own), nothing is made.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from . import pip_wheel
from .words import Refusal, say

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
SERVICE = ROOT / "requirements.txt"
TESTS = ROOT / "tests" / "requirements.txt"
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^ ;\\]+)\s*(;.*?)?\\?$")


def wanted(tests: bool) -> list[Path]:
    return [SERVICE, TESTS] if tests else [SERVICE]


def stamp_of(files: list[Path], version: tuple[int, int]) -> str:
    """Hash of the requirements and the Python that they are installed for."""
    whole = hashlib.sha256(".".join(map(str, version)).encode())
    for file in files:
        whole.update(b"\0" + file.read_bytes())
    return whole.hexdigest()


def missing(files: list[Path]) -> list[str]:
    """Pins that the running interpreter does not have; pins with a condition (another platform) are not looked at."""
    lacks = []
    for file in files:
        for line in file.read_text().splitlines():
            pin = _PIN.match(line)
            if pin is None or pin[3]:
                continue
            try:
                found = importlib.metadata.version(pin[1])
            except importlib.metadata.PackageNotFoundError:
                found = ""
            if found != pin[2]:
                lacks.append(f"{pin[1]}=={pin[2]}")
    return lacks


def stamp_file(tests: bool) -> Path:
    return VENV / (".stamp-tests" if tests else ".stamp")


def is_stamped(tests: bool) -> bool:
    try:
        stamp = stamp_file(tests).read_text()
    except OSError:
        return False
    return stamp == stamp_of(wanted(tests), sys.version_info[:2]) and venv_python().exists()


def venv_python() -> Path:
    return VENV / "bin" / "python"


def is_inside() -> bool:
    return Path(sys.prefix).resolve() == VENV.resolve()


def enter(tests: bool) -> None:
    """Returns when everything is installed for the running interpreter; else makes .venv and starts again in it."""
    if is_inside():
        if is_stamped(tests) or not missing(wanted(tests)):
            return
    elif not is_stamped(tests) and not missing(wanted(tests)):
        return
    with open(SERVICE) as lock:  # the file itself: it is there before anything is made
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_stamped(tests):
            make(tests)
    if not is_inside():
        again()


def enter_if_made() -> None:
    """For commands that install nothing: goes on in .venv where that is complete and we are not in it."""
    if not is_inside() and is_stamped(tests=False):
        again()


def again() -> None:
    """The same command in .venv's interpreter, under the same pid."""
    os.execv(venv_python(), [str(venv_python()), *sys.argv])  # noqa: S606 – our own words


def make(tests: bool) -> None:
    """Makes .venv, or brings it up to date. Raises Refusal with the reason in one line."""
    if not is_usable():
        say(f"Making {VENV} with Python {sys.version.split()[0]}")
        shutil.rmtree(VENV, ignore_errors=True)
        spec = importlib.util.find_spec("ensurepip")
        with_pip = spec is not None and spec.origin is not None
        # Debian without python3-venv lacks ensurepip; pip is then fetched as a pinned wheel
        run([sys.executable, "-m", "venv", str(VENV), *([] if with_pip else ["--without-pip"])], "cannot make .venv")
    elif is_complete(tests):
        write_stamps(tests)
        return
    say("Installing the pinned packages into .venv; the first time takes a minute or two")
    with tempfile.TemporaryDirectory() as folder:
        pip = ["-m", "pip"] if has_pip() else [str(pip_wheel.fetch(Path(folder)) / "pip")]
        command = [
            str(venv_python()),
            *pip,
            "install",
            "-q",
            "--require-hashes",
            "--no-input",
            "--no-warn-script-location",
        ]
        for file in wanted(tests):
            command += ["-r", str(file)]
        run(command, "cannot install the packages")
    write_stamps(tests)


def write_stamps(tests: bool) -> None:
    for each in {False, tests}:
        stamp_file(each).write_text(stamp_of(wanted(each), sys.version_info[:2]))


def is_complete(tests: bool) -> bool:
    """Whether .venv, however it was made, has everything already: then nothing is fetched."""
    code = f"import sys; from mailapi.up.bootstrap import missing, wanted; sys.exit(bool(missing(wanted({tests}))))"
    return subprocess.run([str(venv_python()), "-c", code], cwd=ROOT, capture_output=True).returncode == 0  # noqa: S603


def is_usable() -> bool:
    """Whether .venv has a working interpreter of our version."""
    try:
        said = subprocess.run(  # noqa: S603
            [str(venv_python()), "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True
        )
    except OSError:
        return False
    return said.stdout.split() == [str(part) for part in sys.version_info[:2]]


def has_pip() -> bool:
    found = subprocess.run([str(venv_python()), "-c", "import pip"], capture_output=True)  # noqa: S603
    return found.returncode == 0


def run(command: list[str], what: str) -> None:
    """Runs a step; its errors become one line. Ctrl-C ends the step too."""
    env = {
        k: v
        for k, v in os.environ.items()
        if k not in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONPATH", "PYTHONHOME")
    }
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    step = subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603
    try:
        errors = step.communicate()[1]
    except BaseException:
        step.send_signal(signal.SIGTERM)
        step.wait()
        raise
    if step.returncode:
        lines = [line.strip() for line in errors.splitlines() if line.strip()] or [f"exit {step.returncode}"]
        told = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise Refusal(f"{what}: {told[-1].removeprefix('ERROR: ')}")
