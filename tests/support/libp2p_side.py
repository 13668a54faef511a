"""py-libp2p in a process of its own, asked line by line: what would you write, what do you read?

Its packages import the world and warn while they do, so a test process does not import them. Run as a program this
file is the far side (a JSON object per line, in and out); imported it is the near side, `Libp2pSide`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self


class Libp2pSide:
    """The process, while the `with` block lasts."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)

    def ask(self, question: str, **words: Any) -> Any:
        """The answer of the function of that name below; what it raised comes back as `RuntimeError`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"question": question, "words": words}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "raised" in answer:
            raise RuntimeError(answer["raised"])
        return answer["said"]


# -- the far side --------------------------------------------------------------------------------------------------


def key(seed: str) -> dict[str, str]:
    """The public key and peer ID of an Ed25519 seed."""
    pair = _key_pair(seed)
    return {"public": pair.public_key.serialize().hex(), "peer": _id().from_pubkey(pair.public_key).to_base58()}


def peer_id(text: str) -> str:
    """The bytes of a peer ID in text."""
    return _id().from_string(text).to_bytes().hex()


def peer_id_text(data: str) -> dict[str, str]:
    """The texts of a peer ID in bytes: the old form and the CID."""
    peer = _id()(bytes.fromhex(data))
    cid = b"\x01\x72" + peer.to_bytes()
    import multibase

    return {"base58": peer.to_base58(), "cid": multibase.encode("base32", cid).decode()}


def message(module: str, name: str, content: dict[str, Any]) -> str:
    """A protobuf message of theirs, in bytes; `content` is protobuf's own JSON."""
    import importlib

    from google.protobuf.json_format import ParseDict

    kind = getattr(importlib.import_module(f"libp2p.{module}_pb2"), name)
    return ParseDict(content, kind()).SerializeToString(deterministic=True).hex()


def seal_record(seed: str, peer: str, seq: int, addresses: list[str]) -> str:
    """A signed peer record."""
    from libp2p.peer.envelope import seal_record as seal
    from libp2p.peer.peer_record import PeerRecord
    from multiaddr import Multiaddr

    record = PeerRecord(_id().from_base58(peer), [Multiaddr(bytes.fromhex(address)) for address in addresses], seq)
    return seal(record, _key_pair(seed).private_key).marshal_envelope().hex()


def open_record(data: str) -> dict[str, Any]:
    """What a signed peer record says."""
    from libp2p.peer.envelope import consume_envelope

    _, record = consume_envelope(bytes.fromhex(data), "libp2p-peer-record")
    return {
        "peer": record.peer_id.to_base58(),
        "seq": record.seq,
        "addresses": [a.to_bytes().hex() for a in record.addrs],
    }


def seal_voucher(seed: str, payload: str) -> str:
    """A reservation voucher in its envelope, made as py-libp2p's relay makes it."""
    from libp2p.peer.envelope import Envelope, make_unsigned
    from libp2p.relay.circuit_v2.resources import RELAY_RSVP_DOMAIN, VOUCHER_PAYLOAD_TYPE

    private, body = _key_pair(seed).private_key, bytes.fromhex(payload)
    signature = private.sign(make_unsigned(RELAY_RSVP_DOMAIN, VOUCHER_PAYLOAD_TYPE, body))
    return Envelope(private.get_public_key(), VOUCHER_PAYLOAD_TYPE, body, signature).marshal_envelope().hex()


def open_voucher(data: str) -> str:
    """The payload of a reservation voucher, if its signature is right."""
    from libp2p.peer.envelope import unmarshal_envelope
    from libp2p.relay.circuit_v2.resources import RELAY_RSVP_DOMAIN, VOUCHER_PAYLOAD_TYPE

    envelope = unmarshal_envelope(bytes.fromhex(data))
    envelope.validate(RELAY_RSVP_DOMAIN)
    assert envelope.payload_type == VOUCHER_PAYLOAD_TYPE
    return envelope.raw_payload.hex()


def _key_pair(seed: str) -> Any:
    from libp2p.crypto.ed25519 import create_new_key_pair

    return create_new_key_pair(bytes.fromhex(seed))


def _id() -> Any:
    from libp2p.peer.id import ID

    return ID


QUESTIONS = {
    function.__name__: function
    for function in (key, peer_id, peer_id_text, message, seal_record, open_record, seal_voucher, open_voucher)
}


def _answer(line: str) -> dict[str, Any]:
    asked = json.loads(line)
    try:
        return {"said": QUESTIONS[asked["question"]](**asked["words"])}
    except Exception as why:  # whatever it is, the test shall show it
        return {"raised": repr(why)}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_answer(line)), flush=True)
