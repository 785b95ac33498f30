"""Scripts for Node under tests/sdk, each of which drives a vendor's own client: JSON in, JSON out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SDK = Path(__file__).resolve().parent.parent / "sdk"


def node(script: str, **given: Any) -> Any:
    """What tests/sdk/<script> prints for `given`. Skips without Node or its packages, and fails under REQUIRE_ALL=1."""
    if why := missing():
        pytest.fail(why) if os.environ.get("REQUIRE_ALL") else pytest.skip(why)
    done = subprocess.run(
        ["node", script], input=json.dumps(given), cwd=SDK, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def missing() -> str:
    """Why no script can run here; empty where one can."""
    if not shutil.which("node"):
        return "node is not installed"
    if not (SDK / "node_modules").is_dir():
        return "run `npm ci` in tests/sdk"
    return ""
