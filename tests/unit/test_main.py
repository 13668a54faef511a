"""The front door: arguments, exit status, real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from peerupd import main
from peerupd.model import errors
from tests.support.cluster import Daemon, wait_for
from tests.support.nodes import make_node, make_relay


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "peerupd", *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_version_in_words_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("peerup 0.1.0 (")
    assert main.main(["version", "--json"]) == 0
    assert sorted(json.loads(capsys.readouterr().out)) == ["built", "commit", "python", "version"]


def test_problems_of_a_configuration_are_all_shown_and_the_status_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\nnetwork:\n  listen_addresses: [x]\n")
    bad.chmod(0o600)
    assert main.main(["--config", str(bad)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"peerupd: {bad}: the configuration has 3 problems:")
    assert main.main(["relay", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "config file not found" in capsys.readouterr().err


def test_a_hint_is_shown_and_an_error_in_a_group_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise ExceptionGroup("nursery", [errors.AddressInUse("taken", hint="end the other program")])

    monkeypatch.setattr("peerupd.main._run", fail)
    monkeypatch.setattr("peerupd.control.logs.configure", lambda level: None)
    assert main.main(["--config", str(make_node(tmp_path))]) == 5
    assert capsys.readouterr().err == "peerupd: taken\n  hint: end the other program\n"


def test_a_bug_is_70_with_its_traceback_and_an_interrupt_is_130(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for trouble in (ZeroDivisionError(), ExceptionGroup("", [ValueError(), errors.NoRelay("x")])):
        monkeypatch.setattr("peerupd.model.version.own", lambda trouble=trouble: _raise(trouble))
        assert main.main(["version"]) == 70
    monkeypatch.setattr("peerupd.model.version.own", lambda: _raise(KeyboardInterrupt()))
    assert main.main(["version"]) == 130


def _raise(trouble: BaseException) -> None:
    raise trouble


def test_options_may_stand_before_or_behind_the_role() -> None:
    parse = main._parser().parse_args
    for words in (["--config", "x", "relay"], ["relay", "--config", "x"]):
        assert parse(words).config == Path("x")
    once = parse(["once", "--config", "c", "--request", "{}", "ping"])
    assert (once.config, once.request, once.verb) == (Path("c"), "{}", "ping")
    assert parse([]).config is None


def test_a_node_and_a_relay_as_processes(tmp_path: Path) -> None:
    node, relay = make_node(tmp_path / "n"), make_relay(tmp_path / "r")
    env = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "peerupd"]
    env["PYTHONPATH"] = str(Path(main.__file__).parent.parent)
    ends = [
        Daemon([*command, "--config", str(node), "--foreground", "--log-level", "error"], tmp_path, env, "node"),
        Daemon([*command, "relay", "--config", str(relay)], tmp_path, env, "relay"),
    ]
    for daemon in ends:
        daemon.wait_ready()
    assert (tmp_path / ".config/peerup/peerup.sock").is_socket()
    second = run("--config", str(node), HOME=str(tmp_path))
    assert (second.returncode, second.stdout) == (2, "")
    assert "daemon already running: process" in second.stderr
    once = run("once", "--config", str(node), "--request", "{}", "whoami")
    assert json.loads(once.stdout)["data"]["peer_id"].startswith("12D3KooW")
    wait_for("the status line", lambda: any("not paired" in said for said in ends[0].hear()))
    assert [daemon.stop(signal.SIGTERM) for daemon in ends] == [0, 0]
    assert "Peer ID: 12D3KooW" in ends[0].words()
    assert sorted(os.listdir(tmp_path / ".config/peerup")) == []
