"""Stamp commit and build date into `peerupd/model/stamp.py`.

The date is SOURCE_DATE_EPOCH where that is set (reproducible builds), else the commit's own, so that two builds of one
commit are equal.
"""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Write the stamp beside the model, if it says something new."""
    commit, _, seconds = git("log", "-1", "--format=%h %ct").partition(" ")
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or seconds or 0)
    built = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if epoch else "unknown"
    text = f'"""Made by packaging/stamp.py."""\n\nCOMMIT = {commit or "unknown"!r}\nBUILT = {built!r}\n'
    target = ROOT / "peerupd/model/stamp.py"
    if not target.exists() or target.read_text() != text:
        target.write_text(text)


def git(*words: str) -> str:
    """What git says, or nothing where there is no repository."""
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
