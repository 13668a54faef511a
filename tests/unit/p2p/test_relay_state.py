"""What of a relay outlives its restart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.p2p import relay_state
from peerupd.p2p.relay_state import HEADER, Found, Kept, from_text, to_text
from tests.support.fakes import peer_id

ANN, BEN = peer_id(1), peer_id(2)
PLACES = st.sampled_from([None, "203.0.113.7", "2001:db8:1:2::/64"])
KEPT = st.builds(Kept, st.integers(0, 255).map(peer_id), st.integers(0, 1 << 40), PLACES)


@given(st.lists(KEPT, max_size=20, unique_by=lambda kept: kept.peer))
def test_what_was_written_is_read(kept: list[Kept]) -> None:
    assert from_text(to_text(kept)) == Found(tuple(sorted(kept, key=lambda one: one.until)))


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: f"{HEADER}\n{text}".encode()))
def test_garbage_gives_nothing_and_is_told(data: bytes) -> None:
    found = from_text(data)
    assert found.kept == ()
    assert found.trouble.isprintable()


@pytest.mark.parametrize("data", [b"", b"\0" * 1000, b"peerup relay reservations 2\n", b"\x1b[31m\n"])
def test_a_text_that_is_none_of_ours_gives_nothing(data: bytes) -> None:
    assert from_text(data).trouble.startswith("wanted 'peerup relay reservations 1' in its first line, got ")


@pytest.mark.parametrize(
    "line",
    [
        "",
        f"{ANN} 100",
        f"{ANN} 100 203.0.113.7 more",
        f"nobody 100 {relay_state.NOWHERE}",
        f"{ANN} soon -",
        f"{ANN} -1 -",
        f"{ANN} 1.5 -",
        f"{ANN} ٣ -",
        f"{ANN} 99999999999999999999 -",
        f"{ANN} 100 here",
        f"{ANN} 100 203.0.113.7/33",
        f"{ANN} 1 {'x' * 300}",
    ],
)
def test_a_line_that_cannot_be_read_costs_itself(line: str) -> None:
    found = from_text(f"{HEADER}\n{line}\n{BEN} 7 -\n".encode())
    assert found == Found((Kept(BEN, 7, None),), "1 of its lines cannot be read")


def test_of_a_peer_that_is_there_twice_the_last_line_counts() -> None:
    assert from_text(f"{HEADER}\n{ANN} 9 -\n{ANN} 7 -\n".encode()).kept == (Kept(ANN, 7, None),)


def test_a_text_that_was_cut_off_gives_what_is_whole() -> None:
    whole = to_text([Kept(ANN, 1, None), Kept(BEN, 2, "203.0.113.7")])
    assert from_text(whole[:-20]).kept == (Kept(ANN, 1, None),)


def test_a_text_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    one = len(to_text([Kept(ANN, 1, None)]))
    monkeypatch.setattr(relay_state, "MAX_TEXT", one + 10)
    assert to_text([Kept(ANN, 1, None), Kept(BEN, 1, None)]) == to_text([Kept(ANN, 1, None)])
