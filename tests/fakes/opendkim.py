"""OpenDKIM as a judge of signatures: an implementation that shares no line with ours or with dkimpy."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.fakes.daemon import need

PROGRAM = Path("/usr/sbin/opendkim")
_VERDICT = re.compile(r"^opendkim: \S*/(\d+)\.eml: (?:verification .* (succeeded)$)?", re.MULTILINE)


def verified(mails: Sequence[bytes], keys: Mapping[str, str], folder: Path) -> list[bool]:
    """Whether each mail bears a good signature; `keys` are TXT records by name. Skips where OpenDKIM is missing."""
    need(PROGRAM)
    config, records = folder / "opendkim.conf", folder / "keys"
    records.write_text("".join(f"{name} {record}\n" for name, record in keys.items()))
    config.write_text(f"Mode v\nTestPublicKeys {records}\n")
    files = [folder / f"{number}.eml" for number in range(len(mails))]
    for file, octets in zip(files, mails, strict=True):
        file.write_bytes(octets)
    done = subprocess.run(
        [PROGRAM, "-x", config, "-v", "-t", ",".join(map(str, files))],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, (said[-2000:], done.stderr[-2000:])
    good = {int(number) for number, succeeded in _VERDICT.findall(said) if succeeded}
    return [number in good for number in range(len(mails))]
