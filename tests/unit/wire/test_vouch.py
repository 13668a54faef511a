"""Vouching at a relay: requests and answers round, proofs bound to code and peer, and no secret shown."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import ProtocolViolation
from peerupd.model.names import PeerId
from peerupd.wire.protobuf import field
from peerupd.wire.vouch import (
    KEY_SIZE,
    MAX_MESSAGE,
    MAX_SECONDS,
    Close,
    Keep,
    No,
    Ok,
    Open,
    Prove,
    Reason,
    Withdraw,
    admission_key,
    decode_answer,
    decode_request,
    proof,
    proves,
)
from tests.support.strategies import peer_ids, peer_names

TOKEN = bytes(range(0xA0, 0xA8))
KEY = admission_key(TOKEN)
JOINER = PeerId.parse("12D3KooWBRFW3HkJCLKSWb4yG6iWRBpgNjbM4FFvNsL5T5JKTqrd")
INVITER = PeerId.parse("12D3KooWLdJAwPtyQ5RFnr9wGXsQzpf3P2SeqFbYkqbfVehLu4Ns")

SECRETS = st.binary(min_size=KEY_SIZE, max_size=KEY_SIZE)
REQUESTS = st.one_of(
    st.builds(Open, SECRETS, st.integers(1, MAX_SECONDS)),
    st.builds(Close, SECRETS),
    st.builds(Prove, SECRETS),
    st.builds(Keep, peer_ids(), peer_names()),
    st.builds(Withdraw, peer_ids()),
)
ANSWERS = st.one_of(st.builds(Ok, st.none() | peer_ids()), st.builds(No, st.sampled_from(Reason)))


@given(REQUESTS)
def test_a_request_comes_back_and_fits_into_one_message(request):
    assert decode_request(request.encode()) == request
    assert len(request.encode()) <= MAX_MESSAGE


@given(ANSWERS)
def test_an_answer_comes_back_and_fits_into_one_message(answer):
    assert decode_answer(answer.encode()) == answer
    assert len(answer.encode()) <= MAX_MESSAGE


def test_the_key_for_the_relay_and_a_proof_do_not_change_between_versions():
    assert KEY.hex() == "82fb8b5a98e40909081e04578338037cdf347471f0927a24f657dfafe1125f71"
    assert proof(KEY, JOINER).hex() == "688b1a8053f5f89ef64355bd942688bfe96f16fb476000294b4e8accb58f326c"


def test_a_proof_fits_one_code_and_one_peer():
    given = proof(KEY, JOINER)
    assert proves(given, KEY, JOINER)
    assert not proves(given, KEY, INVITER)
    assert not proves(given, admission_key(bytes(8)), JOINER)
    assert not proves(b"", KEY, JOINER)


def test_the_token_is_not_in_what_the_relay_learns():
    assert TOKEN not in Open(KEY, 600).encode()


@pytest.mark.parametrize("request_", [Open(KEY, 600), Close(KEY), Prove(KEY)])
def test_no_secret_is_shown(request_):
    assert repr(KEY)[2:-1] not in repr(request_)


def test_the_name_of_a_joiner_is_sanitised():
    data = field(1, 4) + field(5, JOINER.multihash) + field(6, "lap top\n")
    assert decode_request(data) == Keep(JOINER, "laptop")


@pytest.mark.parametrize("number", [0, 6, 2**60])
def test_a_reason_of_the_future_is_unknown(number):
    assert decode_answer(field(3, number)) == No(Reason.UNKNOWN)


def test_a_reason_has_words():
    assert Reason.NO_SUCH_CODE.words == "no such code"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        field(1, 9),
        field(1, 1) + field(2, KEY),
        field(1, 1) + field(2, KEY) + field(3, MAX_SECONDS + 1),
        field(1, 1) + field(2, KEY[1:]) + field(3, 600),
        field(1, 2),
        field(1, 3) + field(4, KEY + b"\0"),
        field(1, 4) + field(5, b"nobody"),
        field(1, 4) + field(5, JOINER.multihash) + field(6, b"\xff"),
        field(1, 5),
        field(1, 2) + field(2, KEY) + field(9, bytes(MAX_MESSAGE)),
    ],
)
def test_a_malformed_request_is_refused(data):
    with pytest.raises(ProtocolViolation):
        decode_request(data)


@pytest.mark.parametrize("data", [field(1, 1) + field(2, b"nobody"), field(1, b""), bytes(MAX_MESSAGE + 1)])
def test_a_malformed_answer_is_refused(data):
    with pytest.raises(ProtocolViolation):
        decode_answer(data)


FIELDS = st.lists(st.builds(field, st.integers(1, 6), st.one_of(st.binary(max_size=40), st.integers(0, 6))))


@given(st.one_of(st.binary(max_size=200), FIELDS.map(b"".join)))
def test_garbage_is_refused_or_read_but_nothing_else_happens(data):
    for read in (decode_request, decode_answer):
        with contextlib.suppress(ProtocolViolation):
            read(data)
