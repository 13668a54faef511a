"""`make bench`: one stream of bytes, side by side in one run; a table on stdout, JSON in `bench/results/`.

Everything runs on this machine over loopback: the service, both daemons, the relay and the reader share its cores. So
read the ratios. Rounds are interleaved, medians are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.cluster import end, free_port, wait_for
from tests.support.pair import Pair

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
Measure = Callable[[], float]


def main() -> int:
    """Measure everything that is there; what is not is said."""
    options = arguments()
    size = options.mib * MIB
    with tempfile.TemporaryDirectory(prefix="peerup-bench-") as folder, ExitStack() as stack:
        source = stack.enter_context(running([sys.executable, str(HERE / "stream.py"), "source"]))
        service = int(line(source))
        paths: dict[str, Measure | str] = {"raw TCP": lambda: read(service, size)}
        paths["ssh -L"] = stack.enter_context(ssh_forward(Path(folder), service, size))
        pair = Pair.make(Path(folder) / "pair")
        stack.callback(pair.close)
        pair.home.ctl("service", "add", "bench", f"127.0.0.1:{service}")
        for name, path in (("peerup, direct", "direct"), ("peerup, relayed", "relay")):
            port = stack.enter_context(pair.proxy("bench", path))
            paths[name] = lambda port=port: read(port, size)
        paths["stock py-libp2p, not proxied"] = stack.enter_context(stock(size))
        results = measure(paths, options.rounds, size)
    report(results, options)
    return 0


def measure(paths: dict[str, Measure | str], rounds: int, size: int) -> dict[str, Any]:
    """MB/s of each path, all rounds; interleaved so that a busy moment hits all alike."""
    rates: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(rounds):
        for name, path in paths.items():
            if not isinstance(path, str):
                progress(f"round {number + 1}/{rounds}: {name}")
                rates[name].append(size / 1e6 / path())
    progress("")
    return {name: rates[name] or paths[name] for name in paths}


def progress(text: str) -> None:
    """What is being measured, on a terminal; each replaces the one before."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


def report(results: dict[str, Any], options: argparse.Namespace) -> None:
    """The table, and the JSON beside it."""
    ours = statistics.median(results["peerup, direct"])
    print(f"{'one stream, ' + str(options.mib) + ' MiB, loopback':<34}{'MB/s':>8}{'min':>8}{'max':>8}{'of direct':>11}")
    for name, rates in results.items():
        if isinstance(rates, str):
            print(f"{name:<34}{rates:>8}")
            continue
        middle = statistics.median(rates)
        print(f"{name:<34}{middle:>8.0f}{min(rates):>8.0f}{max(rates):>8.0f}{middle / ours:>11.2f}")
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    (HERE / "results").mkdir(exist_ok=True)
    whole = {"machine": machine, "mib": options.mib, "mb_per_s": results}
    (HERE / "results/throughput.json").write_text(json.dumps(whole, indent=2) + "\n")
    print(f"\n{machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}")


def read(port: int, size: int) -> float:
    """Seconds, by a reader in a process of its own."""
    return seconds([sys.executable, str(HERE / "stream.py"), "read", str(port), str(size)])


def seconds(command: list[str]) -> float:
    """The number that a command prints."""
    return float(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)


@contextmanager
def ssh_forward(folder: Path, service: int, size: int) -> Iterator[Measure | str]:
    """`ssh -L` through an sshd of our own on loopback."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if sshd is None or shutil.which("ssh") is None:
        yield "no sshd"
        return
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    port, local = free_port(), free_port()
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    with running([sshd, "-D", "-e", "-f", "/dev/null", *options]):
        wait_for("sshd", lambda: _open(port))
        words = [
            "ssh",
            "-N",
            "-i",
            str(folder / "user"),
            "-p",
            str(port),
            "-L",
            f"127.0.0.1:{local}:127.0.0.1:{service}",
        ]
        quiet = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-F", "none", "127.0.0.1"]
        with running([*words, *quiet]):
            wait_for("ssh -L", lambda: _open(local))
            yield lambda: read(local, size)


@contextmanager
def stock(size: int) -> Iterator[Measure | str]:
    """Two stock py-libp2p hosts."""
    with running([sys.executable, str(HERE / "stock.py"), "serve", str(size)]) as serving:
        address = line(serving)
        yield lambda: seconds([sys.executable, str(HERE / "stock.py"), "fetch", address, str(size)])


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process for as long as the block lasts."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        end(process)


def line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    text = process.stdout.readline().strip()
    if not text:
        raise RuntimeError(f"{process.args} said nothing")
    return text


def _open(port: int) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def arguments() -> argparse.Namespace:
    """`--mib` a transfer, `--rounds` of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
