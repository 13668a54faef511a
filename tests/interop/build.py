"""Builds the foreign peers into `.make/interop`, and nothing anew that has not changed.

    build.py go     the Go peer; prints the path of the program
    build.py js     the JavaScript peer with its packages; prints the path of the script

The sources stay as they are: packages and programs are made beside, from copies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parent.parent / ".make/interop"


def build_go() -> Path:
    """The Go peer: `go build`, with the module versions of `go.sum`."""
    program = OUT / "peer-go"
    sources = [*(HERE / "go").glob("*.go"), HERE / "go/go.mod", HERE / "go/go.sum"]
    state = _state(sources, _said("go", "version"))
    if not _is_built(program, state):
        env = {**os.environ, "GOFLAGS": "-buildvcs=false -mod=readonly -trimpath", "CGO_ENABLED": "0"}
        subprocess.run(["go", "build", "-o", program, "."], cwd=HERE / "go", env=env, check=True, stdout=sys.stderr)
        _note(program, state)
    return program


def build_js() -> Path:
    """The JavaScript peer: `npm ci` when the lock has changed, then the sources beside the packages."""
    folder, sources = OUT / "js", HERE / "js"
    folder.mkdir(parents=True, exist_ok=True)
    locks = [sources / "package.json", sources / "package-lock.json", sources / ".npmrc"]
    state = _state(locks, _said("node", "--version"))
    for source in [*locks, *sources.glob("*.mjs")]:
        shutil.copy(source, folder)
    if not _is_built(folder / "node_modules", state):
        words = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(["npm", *words], cwd=folder, check=True, stdout=sys.stderr)
        _note(folder / "node_modules", state)
    return folder / "peer.mjs"


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _state(files: list[Path], tool: str) -> str:
    whole = hashlib.sha256(tool.encode())
    for file in sorted(files):
        whole.update(file.name.encode() + b"\0" + file.read_bytes())
    return whole.hexdigest()


def _is_built(made: Path, state: str) -> bool:
    stamp = _stamp(made)
    return made.exists() and stamp.exists() and stamp.read_text() == state


def _note(made: Path, state: str) -> None:
    _stamp(made).write_text(state)


def _stamp(made: Path) -> Path:
    return made.with_name(made.name + ".state")


BUILDERS = {"go": build_go, "js": build_js}

if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or BUILDERS:
        print(BUILDERS[name]())
