"""OpenSSL stays outside, and nothing that we do misses it. In processes of their own: here it is loaded long since."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from peerupd.linux import openssl

LOADED = "maps = open('/proc/self/maps').read(); loaded = any(name in maps for name in ('libcrypto.so', 'libssl.so'))\n"


def run(program: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_START"}  # it loads OpenSSL
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_the_daemon_runs_without_the_systems_openssl() -> None:
    assert run(f"import peerupd.main, trio, hashlib, hmac\n{LOADED}print(loaded)") == "False"


def test_hashes_are_the_same_without_it() -> None:
    program = """
import peerupd.main, hashlib, hmac
print(hashlib.sha256(b"x").hexdigest(), hashlib.blake2s(b"x").hexdigest(), hmac.new(b"k", b"x", "sha256").hexdigest())
"""
    import hashlib
    import hmac

    here = (hashlib.sha256(b"x"), hashlib.blake2s(b"x"), hmac.new(b"k", b"x", "sha256"))
    assert run(program) == " ".join(hashed.hexdigest() for hashed in here)


def test_afterwards_the_real_ssl_can_be_imported() -> None:
    assert run("import peerupd.main, ssl; print(type(ssl.create_default_context()).__name__)") == "SSLContext"


def test_where_ssl_is_loaded_already_it_is_used() -> None:
    assert run("import ssl, trio, peerupd.main; print(trio._ssl._stdlib_ssl is ssl)") == "True"


def test_a_python_without_hashes_of_its_own_keeps_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssl, "find_spec", lambda name: None if name == "_blake2" else object())
    for name in ("ssl", "_hashlib"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with openssl.left_out():
        assert "_hashlib" not in sys.modules


def test_in_the_block_there_are_names_without_meaning_and_no_hashes_of_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ssl", "_hashlib"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with openssl.left_out():
        import ssl

        assert isinstance(ssl.SSLContext, type)
        assert not hasattr(ssl, "__path__")
        with pytest.raises(ImportError):
            __import__("_hashlib")
    assert "ssl" not in sys.modules
    assert "_hashlib" not in sys.modules
