"""Who may use a service."""

import logging
import os

import pytest
import trio

from peerupd.config.schema import ServiceSettings
from peerupd.features.access import Access
from peerupd.model.addresses import Endpoint
from tests.support.fakes import peer_id

ALICE, BOB, EVE = peer_id(1), peer_id(2), peer_id(3)


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "keys"


def write(path, text):
    path.write_text(text)
    path.chmod(0o600)


async def access(**settings):
    made = Access(ServiceSettings("web", True, Endpoint("localhost", 80), **settings), trio.CapacityLimiter(1))
    await made.refresh()
    return made


def allowed(access, now=0.0):
    return {peer for peer in (ALICE, BOB, EVE) if access.allows(peer, now)}


async def test_without_a_list_all_may():
    assert allowed(await access()) == {ALICE, BOB, EVE}
    assert not (await access()).watches_a_file


async def test_a_list_admits_those_on_it_and_an_empty_one_nobody():
    assert allowed(await access(allowed_peers=(ALICE,))) == {ALICE}
    assert allowed(await access(allowed_peers=())) == set()


async def test_list_and_file_are_united(keys):
    write(keys, f"{BOB}\n")
    assert allowed(await access(authorized_keys_file=keys)) == {BOB}
    assert allowed(await access(authorized_keys_file=keys, allowed_peers=(ALICE,))) == {ALICE, BOB}
    write(keys, "")
    assert allowed(await access(authorized_keys_file=keys)) == set()


async def test_an_entry_ends_at_its_time(keys):
    write(keys, f"{BOB} expires=2026-01-01T00:00:00Z\n")
    made = await access(authorized_keys_file=keys)
    assert allowed(made, now=1767225599.0) == {BOB}
    assert allowed(made, now=1767225600.0) == set()


async def test_the_file_is_read_again_when_it_changed(keys, monkeypatch):
    write(keys, f"{BOB}\n")
    made = await access(authorized_keys_file=keys)
    write(keys, f"{BOB}\n{EVE}\n")
    await made.refresh()
    assert allowed(made) == {BOB, EVE}
    write(keys, f"{BOB}\n{ALICE}\n")
    os.utime(keys, ns=(1, 1))
    await made.refresh()
    assert allowed(made) == {BOB, ALICE}


async def test_a_file_that_cannot_be_read_admits_nobody_and_is_told_once(keys, caplog):
    made = await access(authorized_keys_file=keys)
    await made.refresh()
    assert allowed(made) == set()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_file_that_cannot_be_read_any_more_keeps_what_it_said(keys):
    write(keys, f"{BOB}\n")
    made = await access(authorized_keys_file=keys)
    keys.unlink()
    await made.refresh()
    assert allowed(made) == {BOB}
    write(keys, f"{EVE}\n")
    keys.chmod(0o666)
    await made.refresh()
    assert allowed(made) == {BOB}
