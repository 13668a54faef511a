"""The pairing dialogue behind an invite code, both roles (`/peerup/invite/1.0.0`, the dialect that peer-up calls v1).

    joiner                                     inviter
    0x01, X25519 public key            ──▶
                                       ◀──     X25519 public key
    sealed: own name                   ──▶                              only who holds the code can seal this
                                       ◀──     sealed: "OK <name>" or "ERR server error"

The key is HKDF-SHA256 over the shared secret and the code's token; a frame is two bytes of length, a random nonce of
24 bytes and XChaCha20-Poly1305 ciphertext. The token itself is never sent, and the inviter seals nothing before it has
opened the joiner's frame: somebody without the code learns one public key. Only a whole frame that does not open is a
wrong guess (`PairingMismatch`) and may be counted against the code; whatever else is wrong is a `ProtocolViolation`.
What arrives after the last message that a role waits for is not read.
"""

from __future__ import annotations

import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from peerupd.model.errors import InviteRefused, PairingMismatch, ProtocolViolation
from peerupd.model.names import PeerName, printable, sanitised_name

PROTOCOL: Final = "/peerup/invite/1.0.0"
MAX_FRAME: Final = 4096  # bytes after the two of the length
KEY_SIZE: Final = 32  # bytes
NONCE_SIZE: Final = 24  # bytes
MIN_FRAME: Final = NONCE_SIZE + 16  # bytes: a nonce and the tag of an empty text

_VERSION: Final = b"\x01"
_LENGTH: Final = struct.Struct(">H")
_INFO: Final = b"peerup-invite-v1"
_SERVER_ERROR: Final = "ERR server error"
_OTHER_CODE: Final = "compare the code with what the inviter shows, or ask for a new one"

_CHACHA_CONSTANTS: Final = struct.unpack("<4L", b"expand 32-byte k")
_QUARTERS: Final = (
    *((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),  # the columns
    *((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),  # the diagonals
)


class State(Enum):
    """Where a role stands; what it may become is its table of `TRANSITIONS`."""

    AWAITING_KEY = "awaiting key"
    AWAITING_PROOF = "awaiting proof"
    AWAITING_ANSWER = "awaiting answer"
    DONE = "done"
    FAILED = "failed"


class Step(Enum):
    """What moves a role on."""

    KEY = "key received"
    PROOF = "proof received"
    ANSWER = "answered"
    FAULT = "failed"


Table: TypeAlias = dict[State, dict[Step, State]]


@dataclass(frozen=True, slots=True)
class DataToSend:
    """Bytes for the other side, to be sent now."""

    data: bytes


@dataclass(frozen=True, slots=True)
class JoinerProved:
    """The joiner holds the code. The inviter now owes it `accept()` or `refuse()`."""

    name: PeerName
    """What the joiner wants to be called; may be empty."""


@dataclass(frozen=True, slots=True)
class Paired:
    """The inviter said OK."""

    name: PeerName
    """What the inviter wants to be called; may be empty."""


Event: TypeAlias = DataToSend | JoinerProved | Paired


class _Role(ABC):
    """What both roles share: the bytes that wait, the key pair, the state and the one place that changes it."""

    TRANSITIONS: ClassVar[Table]
    _KEY_PREFIX: ClassVar[bytes]

    def __init__(
        self,
        token: bytes,
        name: str,
        *,
        private_key: bytes | None = None,
        nonce: Callable[[], bytes] = lambda: os.urandom(NONCE_SIZE),
    ) -> None:
        self._token = token
        self._name = sanitised_name(name)
        self._private = X25519PrivateKey.from_private_bytes(private_key or os.urandom(KEY_SIZE))
        self._public = self._private.public_key().public_bytes_raw()
        self._nonce = nonce
        self._key = b""
        self._pending = bytearray()
        self.state = State.AWAITING_KEY

    def receive(self, data: bytes) -> list[Event]:
        """What `data` completed.

        Raises `PairingMismatch` or `ProtocolViolation` (the joiner also `InviteRefused`), and then it is over.
        """
        if self.state is State.FAILED:
            raise ProtocolViolation("pairing: bytes after the dialogue has failed")
        self._pending += data
        try:
            return self._events()
        except (PairingMismatch, InviteRefused, ProtocolViolation):
            self._become(Step.FAULT)
            raise

    def _events(self) -> list[Event]:
        events: list[Event] = []
        while (event := self._next()) is not None:
            events.append(event)
        return events

    @abstractmethod
    def _next(self) -> Event | None:
        """What the next whole message means; None while there is none."""

    def _become(self, step: Step) -> None:
        self.state = self.TRANSITIONS[self.state][step]

    def _take_key(self) -> bytes | None:
        """The other side's public key; the session key is known from then on."""
        prefix = self._KEY_PREFIX
        if not self._pending.startswith(prefix[: len(self._pending)]):
            raise ProtocolViolation(f"pairing: unknown version {self._pending[0]}")
        if (message := self._take(len(prefix) + KEY_SIZE)) is None:
            return None
        public = message[len(prefix) :]
        if public == self._public:
            raise ProtocolViolation("pairing: our own key came back")
        self._key = session_key(self._private, public, self._token)
        return public

    def _take_text(self) -> str | None:
        """The text of the next frame; raises `PairingMismatch` when it does not open with this code."""
        if len(self._pending) < _LENGTH.size:
            return None
        size = _LENGTH.unpack_from(self._pending)[0]
        if not MIN_FRAME <= size <= MAX_FRAME:
            raise ProtocolViolation(f"pairing: a frame of {size} bytes, wanted {MIN_FRAME} to {MAX_FRAME}")
        if (frame := self._take(_LENGTH.size + size)) is None:
            return None
        return unseal(self._key, frame[_LENGTH.size :]).decode("utf-8", "replace")

    def _take(self, size: int) -> bytes | None:
        if len(self._pending) < size:
            return None
        taken = bytes(self._pending[:size])
        del self._pending[:size]
        return taken

    def _seal(self, text: str) -> bytes:
        body = seal(self._key, self._nonce(), text.encode())
        return _LENGTH.pack(len(body)) + body


class Joiner(_Role):
    """The side that was given the code; `name` is what the inviter shall call it."""

    TRANSITIONS: ClassVar[Table] = {
        State.AWAITING_KEY: {Step.KEY: State.AWAITING_ANSWER, Step.FAULT: State.FAILED},
        State.AWAITING_ANSWER: {Step.ANSWER: State.DONE, Step.FAULT: State.FAILED},
    }
    _KEY_PREFIX = b""

    def start(self) -> bytes:
        """The first message."""
        return _VERSION + self._public

    def closed(self) -> None:
        """The other side ended the stream: raises what that means, unless the dialogue is done."""
        if self.state is State.AWAITING_ANSWER:
            raise PairingMismatch("the inviter ended the pairing: it did not recognise the code", hint=_OTHER_CODE)
        if self.state is State.AWAITING_KEY:
            raise InviteRefused("the inviter ended the pairing before it began", hint=_OTHER_CODE)

    def _next(self) -> Event | None:
        match self.state:
            case State.AWAITING_KEY:
                return None if self._take_key() is None else self._prove()
            case State.AWAITING_ANSWER:
                return None if (text := self._take_text()) is None else self._answered(text)
            case _:
                self._pending.clear()
                return None

    def _prove(self) -> DataToSend:
        self._become(Step.KEY)
        return DataToSend(self._seal(self._name))

    def _answered(self, text: str) -> Paired:
        if text.startswith("OK"):
            self._become(Step.ANSWER)
            return Paired(sanitised_name(text[2:]))
        if text.startswith("ERR"):
            raise InviteRefused(f"the inviter refused: {printable(text[3:].strip())}", hint=_OTHER_CODE)
        raise ProtocolViolation(f"pairing: neither OK nor ERR but {printable(text, 40)!r}")


class Inviter(_Role):
    """The side that made the code; `name` is what the joiner shall call it."""

    TRANSITIONS: ClassVar[Table] = {
        State.AWAITING_KEY: {Step.KEY: State.AWAITING_PROOF, Step.FAULT: State.FAILED},
        State.AWAITING_PROOF: {Step.PROOF: State.AWAITING_ANSWER, Step.FAULT: State.FAILED},
        State.AWAITING_ANSWER: {Step.ANSWER: State.DONE},
    }
    _KEY_PREFIX = _VERSION

    def start(self) -> bytes:
        """Nothing: the joiner speaks first."""
        return b""

    def accept(self) -> bytes:
        """The answer to a joiner that has proved itself and is written down."""
        return self._answer(f"OK {self._name}")

    def refuse(self) -> bytes:
        """The answer to a joiner that has proved itself and could not be written down."""
        return self._answer(_SERVER_ERROR)

    def _answer(self, text: str) -> bytes:
        self._become(Step.ANSWER)
        return self._seal(text)

    def _next(self) -> Event | None:
        match self.state:
            case State.AWAITING_KEY:
                return None if self._take_key() is None else self._show_key()
            case State.AWAITING_PROOF:
                return None if (text := self._take_text()) is None else self._proved(text)
            case _:
                self._pending.clear()
                return None

    def _show_key(self) -> DataToSend:
        self._become(Step.KEY)
        return DataToSend(self._public)

    def _proved(self, text: str) -> JoinerProved:
        self._become(Step.PROOF)
        return JoinerProved(sanitised_name(text))


# -- the key and the box -------------------------------------------------------------------------------------------


def session_key(private: X25519PrivateKey, public: bytes, token: bytes) -> bytes:
    """The key of one dialogue; raises `ProtocolViolation` for a public key that gives no secret."""
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise ProtocolViolation("pairing: a public key without a secret") from None
    return HKDF(SHA256(), KEY_SIZE, salt=None, info=_INFO).derive(shared + token)


def seal(key: bytes, nonce: bytes, text: bytes) -> bytes:
    """`nonce`, then `text` in XChaCha20-Poly1305 without associated data (draft-irtf-cfrg-xchacha-03)."""
    return nonce + _cipher(key, nonce).encrypt(_short(nonce), text, None)


def unseal(key: bytes, body: bytes) -> bytes:
    """The text in what `seal` made; raises `PairingMismatch`."""
    nonce = body[:NONCE_SIZE]
    try:
        return _cipher(key, nonce).decrypt(_short(nonce), body[NONCE_SIZE:], None)
    except InvalidTag:
        raise PairingMismatch("the two sides do not hold the same invite code", hint=_OTHER_CODE) from None


def _cipher(key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(hchacha20(key, nonce[:16]))


def _short(nonce: bytes) -> bytes:
    """What is left of the nonce for ChaCha20 itself."""
    return bytes(4) + nonce[16:]


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """A key of 32 bytes and 16 bytes of nonce to a key for ChaCha20 (draft-irtf-cfrg-xchacha-03, section 2.2).

    Twice per pairing, so plain integers will do.
    """
    words = [*_CHACHA_CONSTANTS, *struct.unpack("<8L", key), *struct.unpack("<4L", nonce)]
    for _ in range(10):
        for quarter in _QUARTERS:
            _quarter_round(words, *quarter)
    return struct.pack("<8L", *words[:4], *words[12:])


def _quarter_round(words: list[int], a: int, b: int, c: int, d: int) -> None:
    """RFC 8439, section 2.1."""
    for x, y, z, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        words[x] = (words[x] + words[y]) & 0xFFFFFFFF
        mixed = words[z] ^ words[x]
        words[z] = (mixed << bits | mixed >> 32 - bits) & 0xFFFFFFFF
