"""Targets: messages of `wire/` that are decoded in one go. What was decoded is encoded and must decode to the same."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import Any

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import InvalidAddress, InvalidCode, InvalidPeerId, LegacyCode
from peerupd.model.names import PeerId, PeerName
from peerupd.wire import circuit, envelope, identify, invite, keys, netlink, vouch
from peerupd.wire import protobuf as wire_protobuf
from peerupd.wire.circuit import HopKind, HopMessage, Limit, Reservation, Status, StopKind, StopMessage, Voucher
from peerupd.wire.envelope import PeerRecord
from peerupd.wire.identify import Identify
from peerupd.wire.keys import KeyType, PublicKey
from peerupd.wire.protobuf import Message, field, read_varint, varint
from tests.fuzz import mutation
from tests.fuzz.samples import (
    ADDRESSES,
    ALICE,
    BOB,
    HASHED,
    P256,
    PEER,
    RSA_TOO_SHORT,
    SIGNED,
    SIGNED_BY,
    drawn,
    public_of,
)
from tests.fuzz.target import Choices, Target
from tests.support.strategies import fields, invites

OWN = public_of(ALICE)


def _behind(size: int) -> Callable[[Random, bytes, bytes], bytes]:
    """Protobuf mutations of what follows a head of so many bytes."""

    def mutate(random: Random, data: bytes, other: bytes) -> bytes:
        return data[:size] + mutation.protobuf(random, data[size:], other[size:])

    return mutate


def _round_trip(decode: Callable[[bytes], Any], data: bytes) -> str:
    value = decode(data)
    again = decode(value.encode())
    assert again == value, f"{value} came back as {again}"
    return type(value).__name__


def _message(
    name: str, decode: Callable[[bytes], Any], seeds: Iterable[bytes], *, share: float = 1.0, max_input: int = 8192
) -> Target:
    return Target(
        name,
        partial(_round_trip, decode),
        lambda: seeds,
        mutate=mutation.protobuf,
        share=share,
        max_input=max_input,
        tokens=tuple(address.to_bytes() for address in ADDRESSES),
    )


# -- protobuf ------------------------------------------------------------------------------------------------------


def _fields(data: bytes) -> int:
    found = wire_protobuf.decode(data)
    assert wire_protobuf.decode(memoryview(data)) == found
    assert wire_protobuf.decode(b"".join(field(number, value) for number, value in found)) == found
    assert len(found) <= wire_protobuf.MAX_FIELDS
    return min(len(found), 9)


def _questions(data: bytes) -> object:
    """Any question about any field: the answer is of the right type and within its limit."""
    asked = Choices(data[:4])
    number, limit, count, kind = asked.byte() % 8, asked.byte(), asked.byte() % 8, asked.byte() % 5
    message = Message(data[4:], limit=count * 64 or wire_protobuf.MAX_FIELDS)
    match kind:
        case 0:
            assert len(found := message.bytes(number, limit=limit)) <= limit
        case 1:
            assert 0 <= (found := message.int(number)) < 2**64
        case 2:
            assert len((found := message.text(number, limit=limit)).encode()) <= limit
        case 3:
            assert len(found := message.all_bytes(number, limit_count=count)) <= count
        case _:
            found = message.all_text(number, limit_count=count, limit=limit)
            assert all(len(text.encode()) <= limit for text in found)
    assert message.has(number) or not found
    return kind


def _varint(data: bytes) -> int:
    number, at = read_varint(data, 0)
    assert read_varint(varint(number), 0)[0] == number
    assert len(varint(number)) <= at <= wire_protobuf.MAX_VARINT_BYTES
    return at


def _field_seeds() -> list[bytes]:
    return [b"".join(field(number, value) for number, value in each) for each in drawn(fields())]


# -- keys and envelopes --------------------------------------------------------------------------------------------


def _key(data: bytes) -> str:
    key = PublicKey.decode(data)
    assert PublicKey.decode(key.encode()) == key
    assert PeerId.from_bytes(key.peer_id.multihash) == key.peer_id
    return key.type.name


def _signature(data: bytes) -> str:
    """A key and a signature; only the signature of its owner is taken."""
    choices = Choices(data)
    signature = choices.take(choices.number(2))
    key = PublicKey.decode(choices.rest())
    key.verify(signature, SIGNED)
    assert key.data in {known.data for known, _ in SIGNED_BY} or key.type is not KeyType.ED25519
    return key.type.name


def _signature_seeds() -> list[bytes]:
    unusable = ((PublicKey(KeyType.RSA, RSA_TOO_SHORT), b""), (PublicKey(KeyType.RSA, P256), b""))
    swapped = ((PublicKey(KeyType.ECDSA, SIGNED_BY[0][0].data), b""), (OWN, bytes(keys.MAX_SIGNATURE_BYTES + 1)))
    return [
        struct.pack(">H", len(signature)) + signature + key.encode()
        for key, signature in (*SIGNED_BY, *unusable, *swapped)
    ]


def _records() -> list[PeerRecord]:
    return [
        PeerRecord(OWN.peer_id, 1, ADDRESSES),
        PeerRecord(OWN.peer_id, 0),
        PeerRecord(HASHED, 2**64 - 1, ADDRESSES[:1] * 70),
    ]


def _sealed(domain: str, kind: bytes, open_: Callable[[bytes], Any], data: bytes) -> object:
    """The first byte says whether the rest is the envelope, or what somebody has signed in one."""
    head, rest = data[:1], data[1:]
    if head in (b"", b"\0"):
        return open_(rest) and "open"
    signer = ALICE if head[0] & 1 else BOB
    opened = open_(envelope.seal(domain, kind, rest, public_of(signer), signer.sign))
    signed_for = opened.peer if isinstance(opened, PeerRecord) else opened.relay
    assert signed_for == public_of(signer).peer_id
    return "sealed"


def _opened_record(data: bytes) -> PeerRecord:
    record = envelope.open_record(data)
    assert len(record.addresses) <= envelope.MAX_ADDRESSES
    return record


def _record_seeds() -> list[bytes]:
    whole = [b"\0" + envelope.seal_record(record, OWN, ALICE.sign) for record in _records()]
    return whole + [bytes([1 + at]) + record.encode() for at, record in enumerate(_records())]


def _voucher_seeds() -> list[bytes]:
    mine, foreign = Voucher(OWN.peer_id, PEER, 10**9), Voucher(PEER, OWN.peer_id, 0)
    whole = [b"\0" + voucher.seal(OWN, ALICE.sign) for voucher in (mine, foreign)]
    payload = field(1, OWN.peer_id.multihash) + field(2, HASHED.multihash) + field(3, 2**40)
    return [*whole, b"\1" + payload, b"\2" + payload]


# -- identify ------------------------------------------------------------------------------------------------------


def _identify(data: bytes) -> str:
    told = Identify.decode(data)
    _round_trip(Identify.decode, data)
    texts = (told.protocol_version, told.agent_version)
    assert all(len(text) <= identify.MAX_TEXT and text.isprintable() for text in texts)
    assert len(told.listen_addrs) <= envelope.MAX_ADDRESSES
    assert len(told.protocols) <= identify.MAX_PROTOCOLS
    return "told"


def _merged(data: bytes) -> str:
    """Several messages say the same however the bytes are spread over them; too many are refused."""
    size = 1 + len(data) // (1 + len(data) % (identify.MAX_MESSAGES + 2))
    cut = [data[at : at + size] for at in range(0, len(data), size)]
    assert Identify.merge(cut) == Identify.decode(data)
    return f"{len(cut)} messages"


def _identify_seeds() -> list[bytes]:
    record = envelope.seal_record(_records()[0], OWN, ALICE.sign)
    full = Identify("peerup/2", "peerup/0.1.0", OWN, ADDRESSES, ADDRESSES[0], ("/ipfs/id/1.0.0", "/noise"), record)
    many = Identify("ipfs/0.1.0", "\u202ego\n", None, ADDRESSES * 20, None, tuple(f"/p/{at}" for at in range(100)))
    return [
        full.encode(),
        many.encode(),
        Identify().encode(),
        *(Identify(public_key=key).encode() for key, _ in SIGNED_BY),
    ]


# -- circuit and vouch ---------------------------------------------------------------------------------------------


def _hop_seeds() -> list[bytes]:
    reservation = Reservation(2**33, ADDRESSES, b"voucher")
    messages = (
        HopMessage(HopKind.RESERVE),
        HopMessage(HopKind.CONNECT, peer=PEER),
        HopMessage(HopKind.STATUS, status=Status.OK, reservation=reservation, limit=Limit(120, 2**17)),
        *(HopMessage(HopKind.STATUS, status=status) for status in Status),
    )
    return [message.encode() for message in messages]


def _stop_seeds() -> list[bytes]:
    messages = (
        StopMessage(StopKind.CONNECT, peer=HASHED, limit=Limit(600, 2**26)),
        StopMessage(StopKind.STATUS, status=Status.CONNECTION_FAILED),
    )
    return [message.encode() for message in messages]


def _request_seeds() -> list[bytes]:
    key = bytes(range(vouch.KEY_SIZE))
    messages = (
        *(vouch.Open(key, 600), vouch.Close(key), vouch.Prove(vouch.proof(key, PEER))),
        *(vouch.Keep(PEER, PeerName("laptop")), vouch.Keep(HASHED, PeerName("")), vouch.Withdraw(PEER)),
    )
    return [message.encode() for message in messages]


def _answer_seeds() -> list[bytes]:
    return [each.encode() for each in (vouch.Ok(), vouch.Ok(PEER), *(vouch.No(reason) for reason in vouch.Reason))]


def _proof(data: bytes) -> bool:
    """Whatever is given as a proof: only the one of this key and peer is one."""
    key, peer = data[: vouch.KEY_SIZE], (PEER, HASHED)[len(data) & 1]
    given = data[vouch.KEY_SIZE :]
    return vouch.proves(given, vouch.admission_key(key), peer)


# -- netlink -------------------------------------------------------------------------------------------------------


def _netlink(data: bytes) -> str:
    answer = netlink.parse(data)
    assert len(answer.addresses) <= len(data) // 20
    return f"{min(len(answer.addresses), 3)} {answer.done}"


def _netlink_seeds() -> list[bytes]:
    def message(kind: int, body: bytes) -> bytes:
        return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body

    def attribute(kind: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)

    four = struct.pack("=BBBBI", 2, 24, 128, 0, 2) + attribute(1, bytes(4)) + attribute(2, b"\xc0\xa8\1\2")
    six = struct.pack("=BBBBI", 10, 64, 0, 0, 3) + attribute(1, b"\x20\x01" + bytes(14)) + attribute(8, b"\x20\1\0\0")
    other = struct.pack("=BBBBI", 7, 64, 0, 253, 3) + attribute(3, b"eth0\0")
    return [
        message(20, four) + message(20, six),
        message(20, six) + message(20, other) + message(3, bytes(4)),
        message(2, struct.pack("=i", -13) + bytes(16)),
        message(2, bytes(20)) + message(16, b"") + message(3, b""),
        message(16, bytes(netlink.MAX_DATAGRAM)),
        netlink.request(),
    ]


# -- invite codes --------------------------------------------------------------------------------------------------

_INVITE_ERRORS = (InvalidCode,)


def _code(data: bytes) -> str:
    """A text, however damaged: read strictly, with and without the older dialect."""
    return _read_code(data.decode("utf-8", "surrogateescape"))


def _code_of_bytes(data: bytes) -> str:
    """A text whose base32 is right, so that its layout is what is looked at."""
    return _read_code(invite._text(data))


def _read_code(text: str) -> str:
    found = invite.decode(text, allow_legacy=True)
    if not found.legacy:
        assert invite.decode(text) == found
        assert invite.decode(invite.encode(found)) == found
        assert invite.encode(found).replace("-", "") == "".join(text.split()).replace("-", "").upper()
        return "invite"
    try:
        invite.decode(text)
    except LegacyCode:
        return "legacy"
    raise AssertionError("a code of the older dialect was taken without being allowed")


def _layouts() -> list[bytes]:
    """Codes of all versions, as bytes."""
    made = [invite._bytes(invite.encode(each)) for each in drawn(invites())]
    tail = b"\x01\x02\x03\x04\x00\x16" + bytes((len(PEER.multihash),)) + PEER.multihash
    legacy = b"\1" + bytes(8) + tail + HASHED.multihash
    pairing = b"\2" + bytes(16) + tail + b"\4home"
    development = b"\2" + bytes(8) + tail + b"\0" + HASHED.multihash
    plain = Multiaddr.parse("/ip4/203.0.113.50/tcp/7777").to_bytes()
    not_so_written = b"\3" + bytes(8) + len(plain).to_bytes(2, "big") + plain + tail[6:] + b"\0" + HASHED.multihash
    return [*made, legacy, pairing, pairing + b"x", development, not_so_written, b"\4" + bytes(40)]


# -- addresses and peer IDs, as bytes ------------------------------------------------------------------------------


def _multiaddr(data: bytes) -> int:
    address = Multiaddr.from_bytes(data)
    assert Multiaddr.from_bytes(address.to_bytes()) == address
    assert Multiaddr.parse(str(address)) == address, str(address)
    assert str(address).isprintable()
    for asked in (address.peer, address.host, address.port, address.ip, address.is_plain_tcp, address.is_circuit):
        assert asked is not NotImplemented
    return len(address.parts)


def _peer_id(data: bytes) -> int:
    peer = PeerId.from_bytes(data)
    assert PeerId.parse(str(peer)) == peer, str(peer)
    return peer.multihash[0]


MESSAGES = (
    Target("wire.protobuf", _fields, _field_seeds, mutate=mutation.protobuf, share=2, max_input=16384),
    Target("wire.protobuf.questions", _questions, lambda: [bytes(4) + s for s in _field_seeds()], mutate=_behind(4)),
    Target("wire.protobuf.varint", _varint, lambda: [varint(1 << at) for at in range(0, 64, 7)], share=0.5),
    Target("wire.keys", _key, lambda: [key.encode() for key, _ in SIGNED_BY], mutate=mutation.protobuf),
    Target("wire.keys.signature", _signature, _signature_seeds, mutate=_behind(2), share=0.7),
    _message("wire.envelope.record", PeerRecord.decode, [record.encode() for record in _records()]),
    Target(
        "wire.envelope.sealed_record",
        partial(_sealed, envelope.PEER_RECORD_DOMAIN, envelope.PEER_RECORD_TYPE, _opened_record),
        _record_seeds,
        mutate=_behind(1),
        share=0.7,
        max_input=envelope.MAX_ENVELOPE + 64,
    ),
    Target(
        "wire.circuit.voucher",
        partial(_sealed, circuit.VOUCHER_DOMAIN, circuit.VOUCHER_TYPE, Voucher.open),
        _voucher_seeds,
        mutate=_behind(1),
        share=0.7,
    ),
    _message("wire.circuit.hop", HopMessage.decode, _hop_seeds()),
    _message("wire.circuit.stop", StopMessage.decode, _stop_seeds()),
    _message("wire.vouch.request", vouch.decode_request, _request_seeds()),
    _message("wire.vouch.answer", vouch.decode_answer, _answer_seeds()),
    Target("wire.vouch.proof", _proof, lambda: [bytes(64), b"\1" * 8], share=0.3),
    Target("wire.identify", _identify, _identify_seeds, mutate=mutation.protobuf, max_input=identify.MAX_IDENTIFY + 64),
    Target("wire.identify.merge", _merged, _identify_seeds, mutate=mutation.protobuf, share=0.7),
    Target("wire.netlink", _netlink, _netlink_seeds, max_input=netlink.MAX_DATAGRAM + 64),
    Target(
        "wire.invite",
        _code,
        lambda: [b"- -", b"AAAA", b"AAA1", b"AAAA" * 6, *(invite.encode(each).encode() for each in drawn(invites()))],
        declared=_INVITE_ERRORS,
        share=0.7,
    ),
    Target("wire.invite.layouts", _code_of_bytes, _layouts, declared=_INVITE_ERRORS, max_input=1400),
    Target(
        "model.addresses.bytes",
        _multiaddr,
        lambda: [address.to_bytes() for address in ADDRESSES],
        declared=(InvalidAddress,),
        max_input=600,
    ),
    Target(
        "model.names.peer_id_bytes",
        _peer_id,
        lambda: [PEER.multihash, HASHED.multihash, bytes.fromhex("0005") + b"short"],
        declared=(InvalidPeerId,),
        share=0.3,
        max_input=64,
    ),
)
