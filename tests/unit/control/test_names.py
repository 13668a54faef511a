"""Who is meant by a word."""

from __future__ import annotations

import pytest

from peerupd.control.names import Names
from peerupd.model.errors import RequestError, UnknownPeer
from tests.support.fakes import peer_id

ANN, BOB = peer_id(1), peer_id(2)


def test_a_name_of_the_configuration_or_a_peer_id() -> None:
    names = Names({"ann": ANN})
    assert names.resolve("ann") == ANN
    assert names.resolve(str(BOB)) == BOB
    assert names.explain("ann").source == "local_config"
    assert names.explain(str(BOB)).source == "peer_id"
    assert (names.name_of(ANN), names.name_of(BOB)) == ("ann", None)


def test_a_peer_id_is_itself_even_if_another_peer_took_it_for_its_name() -> None:
    assert Names({str(ANN): BOB}).resolve(str(ANN)) == ANN


def test_an_unknown_name_is_told_with_the_known_ones_and_made_printable() -> None:
    with pytest.raises(UnknownPeer, match=r'cannot resolve "e�ve": name not found') as why:
        Names({"ann": ANN}).resolve("e\x1bve")
    assert why.value.hint == "known names: ann"
    with pytest.raises(UnknownPeer) as why:
        Names({}).resolve("eve")
    assert "no names are configured" in why.value.hint


def test_no_word_means_nobody() -> None:
    with pytest.raises(RequestError, match="peer is required"):
        Names({}).resolve("")


def test_other_names_can_be_put_in_force() -> None:
    names = Names({"ann": ANN})
    names.replace({"bob": BOB})
    assert names.resolve("bob") == BOB
    with pytest.raises(UnknownPeer):
        names.resolve("ann")
