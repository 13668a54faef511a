"""Noise XX as libp2p speaks it (`/noise`): who is there, then sealed records.

    initiator                       responder
    start         ── e ───────────────────▶ _read_first
    _read_second  ◀── e, ee, s, es, who ──
    done          ── s, se, who ──────────▶ _read_third, done

Theory of operation. Noise_XX_25519_ChaChaPoly_SHA256 (noiseprotocol.org, revision 34), each message behind a two-byte
big-endian length. The payload `who` of the second and third message holds the sender's libp2p key and its signature
over the static key of this handshake (libp2p specs, noise): only with that is the peer known. The initiator checks it
before it says who it is. Until then at most two messages of `MAX_HANDSHAKE_MESSAGE` bytes are waited for.

Afterwards a `Session` seals bytes into records and opens whatever arrived, by whole batches and in buffers of the
caller: `seal_in_place` encrypts where the plaintext lies, `open_into` puts the plaintexts of all records one behind the
other. `cryptography` before 47 has no `encrypt_into`; then each record is a bytes object of its own on its way.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from peerupd.model.errors import FrameTooLarge, ProtocolViolation, WrongPeer
from peerupd.model.names import PeerId
from peerupd.wire.keys import PublicKey
from peerupd.wire.protobuf import Buffer, Message, field

PROTOCOL: Final = "/noise"
MAX_HANDSHAKE_MESSAGE: Final = 4096  # bytes; two keys and signatures of RSA-8192 fit
MAX_MUXERS: Final = 32  # named in one handshake
RECORD: Final = (
    12 + 32 * 1024
)  # bytes of plaintext: a yamux frame of 32 KiB; larger ones leave the processor's L1 cache
LENGTH: Final = 2  # bytes before a record
TAG: Final = 16  # bytes
MAX_RECORD: Final = 65535  # bytes after its length, with its tag
KEY: Final = 32  # bytes, of X25519 and ChaCha20
HAS_INTO: Final = hasattr(ChaCha20Poly1305, "encrypt_into")

_NAME: Final = b"Noise_XX_25519_ChaChaPoly_SHA256"
_SIGNED: Final = b"noise-libp2p-static-key:"
_IDENTITY_KEY, _IDENTITY_SIG, _EXTENSIONS = 1, 2, 4  # of NoiseHandshakePayload
_STREAM_MUXERS: Final = 2  # of NoiseExtensions

_length = struct.Struct(">H")
_nonce = struct.Struct("<4xQ").pack


class Handshake:
    """One handshake, either role; when `done`, the peer is `remote_peer` and `session` is ready.

    `sign` signs with the private half of `identity_key`. With `expected`, anybody else raises `WrongPeer`. `muxers`
    are offered inside the handshake (libp2p specs, inlined muxer negotiation): `muxer` is the one agreed on, or None.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        identity_key: PublicKey,
        sign: Callable[[bytes], bytes],
        expected: PeerId | None = None,
        prologue: bytes = b"",
        muxers: Sequence[str] = (),
    ) -> None:
        self.done = False
        self.muxer: str | None = None
        self.remote_key: PublicKey
        self.remote_peer: PeerId
        self.session: Session
        self._initiator = initiator
        self._identity_key = identity_key
        self._sign = sign
        self._expected = expected
        self._muxers = muxers
        self._state = _Symmetric(prologue)
        self._static = X25519PrivateKey.generate()
        self._ephemeral = X25519PrivateKey.generate()
        self._remote_ephemeral = b""
        self._pending = bytearray()
        self._step = self._read_second if initiator else self._read_first

    def start(self) -> bytes:
        """The initiator's first message; nothing for the responder."""
        if not self._initiator:
            return b""
        message = self._write_ephemeral() + self._state.encrypt(b"")
        return _framed(message)

    def receive(self, data: Buffer) -> bytes:
        """What to send now; raises `ProtocolViolation`, or `WrongPeer` before the initiator has said who it is."""
        self._pending += data
        out = b""
        while not self.done and (message := self._next()) is not None:
            out += self._step(message)
        return out

    @property
    def leftover(self) -> bytes:
        """What came after the handshake: the beginning of the records, for `session.open`."""
        return bytes(self._pending)

    def _next(self) -> bytes | None:
        if len(self._pending) < _length.size:
            return None
        (size,) = _length.unpack_from(self._pending)
        if size > MAX_HANDSHAKE_MESSAGE:
            raise FrameTooLarge(f"Noise handshake message of {size} bytes, at most {MAX_HANDSHAKE_MESSAGE} are allowed")
        end = _length.size + size
        if len(self._pending) < end:
            return None
        message = bytes(self._pending[_length.size : end])
        del self._pending[:end]
        return message

    def _read_first(self, message: bytes) -> bytes:
        self._read_ephemeral(message)
        self._state.decrypt(message[KEY:])
        self._step = self._read_third
        answer = self._write_ephemeral()
        self._state.mix_key(_dh(self._ephemeral, self._remote_ephemeral))
        answer += self._state.encrypt(_public(self._static))
        self._state.mix_key(_dh(self._static, self._remote_ephemeral))
        return _framed(answer + self._state.encrypt(self._who()))

    def _read_second(self, message: bytes) -> bytes:
        self._read_ephemeral(message)
        self._state.mix_key(_dh(self._ephemeral, self._remote_ephemeral))
        static, payload = message[KEY : 2 * KEY + TAG], message[2 * KEY + TAG :]
        remote_static = self._state.decrypt(static)
        self._state.mix_key(_dh(self._ephemeral, remote_static))
        self._meet(remote_static, self._state.decrypt(payload))
        answer = self._state.encrypt(_public(self._static))
        self._state.mix_key(_dh(self._static, self._remote_ephemeral))
        answer += self._state.encrypt(self._who())
        self._finish()
        return _framed(answer)

    def _read_third(self, message: bytes) -> bytes:
        remote_static = self._state.decrypt(message[: KEY + TAG])
        self._state.mix_key(_dh(self._ephemeral, remote_static))
        self._meet(remote_static, self._state.decrypt(message[KEY + TAG :]))
        self._finish()
        return b""

    def _write_ephemeral(self) -> bytes:
        ephemeral = _public(self._ephemeral)
        self._state.mix_hash(ephemeral)
        return ephemeral

    def _read_ephemeral(self, message: bytes) -> None:
        if len(message) < KEY:
            raise ProtocolViolation("Noise handshake message cut short")
        self._remote_ephemeral = message[:KEY]
        self._state.mix_hash(self._remote_ephemeral)

    def _who(self) -> bytes:
        signature = self._sign(_SIGNED + _public(self._static))
        payload = field(_IDENTITY_KEY, self._identity_key.encode()) + field(_IDENTITY_SIG, signature)
        if self._muxers:
            payload += field(_EXTENSIONS, b"".join(field(_STREAM_MUXERS, name) for name in self._muxers))
        return payload

    def _meet(self, static: bytes, payload: bytes) -> None:
        """Learn from the other side's payload who it is, or raise."""
        message = Message(payload)
        key = PublicKey.decode(message.bytes(_IDENTITY_KEY))
        key.verify(message.bytes(_IDENTITY_SIG), _SIGNED + static)
        if self._expected not in (None, key.peer_id):
            raise WrongPeer(f"wanted {self._expected}, but {key.peer_id} answers here")
        self.remote_key, self.remote_peer = key, key.peer_id
        theirs = Message(message.bytes(_EXTENSIONS)).all_text(_STREAM_MUXERS, limit_count=MAX_MUXERS)
        first, second = (self._muxers, theirs) if self._initiator else (theirs, self._muxers)
        self.muxer = next((name for name in first if name in second), None)

    def _finish(self) -> None:
        ours, theirs = self._state.split()
        if not self._initiator:
            ours, theirs = theirs, ours
        self.session = Session(ours, theirs)
        self.done = True


class Session:
    """The records after the handshake; each direction has its key and counts its records."""

    def __init__(self, send_key: bytes, receive_key: bytes, *, into: bool = HAS_INTO) -> None:
        sealer, opener = ChaCha20Poly1305(send_key), ChaCha20Poly1305(receive_key)
        self._seal = sealer.encrypt_into if into else _copying(sealer.encrypt)
        self._open = opener.decrypt_into if into else _copying(opener.decrypt)
        self._sealed = 0  # records
        self._opened = 0  # records
        self._pending = bytearray()  # the beginning of one record
        self._last = 1  # bytes of the last record that was opened

    def seal(self, data: Buffer | Sequence[Buffer]) -> bytearray:
        """The records that carry `data` (or all of its pieces), in the order of calls; small pieces share a record."""
        records = list(_records((data,) if isinstance(data, Buffer) else data))
        size = sum(map(len, records)) + len(records) * (LENGTH + TAG)
        out = bytearray(size)
        view, at = memoryview(out), 0
        for record in records:
            at = self.seal_into(record, view, at)
        return out

    def seal_into(self, plain: Buffer, wire: memoryview, at: int) -> int:
        """Put the record that carries `plain` at `at`; where it ends. At most `MAX_RECORD - TAG` bytes."""
        end = at + LENGTH + len(plain) + TAG
        _length.pack_into(wire, at, end - at - LENGTH)
        self._seal(_nonce(self._sealed), plain, None, wire[at + LENGTH : end])
        self._sealed += 1
        return end

    def seal_in_place(self, wire: memoryview, at: int, size: int) -> int:
        """The same for plaintext that lies `LENGTH` bytes behind `at` already."""
        start = at + LENGTH
        end = start + size + TAG
        _length.pack_into(wire, at, size + TAG)
        self._seal(_nonce(self._sealed), wire[start : start + size], None, wire[start:end])
        self._sealed += 1
        return end

    def open(self, data: Buffer) -> bytearray:
        """All the plaintext that `data` completed, maybe none; raises `ProtocolViolation` if it is not genuine."""
        plain = bytearray(len(self._pending) + len(data))
        end = self.open_into(data, memoryview(plain), 0)
        del plain[end:]
        return plain

    def open_into(self, data: Buffer, plain: memoryview, at: int) -> int:
        """Put all the plaintext that `data` completed into `plain` from `at` on; where it ends.

        There must be room for `data` and for a record begun earlier (`MAX_RECORD`). Raises as `open` does.
        """
        try:
            return self._opened_records(memoryview(data), plain, at)
        except InvalidTag:
            raise ProtocolViolation("a Noise record does not authenticate") from None

    def portion(self, limit: int) -> int:
        """How many bytes to read, `limit` at most, so that a record ends with them: if all are as long as the last one.

        What is left of a record has to be kept and moved.
        """
        lacking = self._check_pending() - len(self._pending) if self._pending else 0
        return lacking + (limit - lacking) // self._last * self._last

    def _opened_records(self, view: memoryview, plain: memoryview, at: int) -> int:
        start, left = 0, len(view)
        if self._pending:
            start, at = self._complete_pending(view, plain, at)
        opening, opened = self._open, self._opened
        while left - start >= LENGTH:
            size = view[start] << 8 | view[start + 1]
            end = start + LENGTH + size
            if size < TAG or end > left:
                break
            until = at + size - TAG
            opening(_nonce(opened), view[start + LENGTH : end], None, plain[at:until])
            opened += 1
            self._last = end - start
            start, at = end, until
        self._opened = opened
        if start < left:
            self._pending += view[start:]
            self._check_pending()
        return at

    def _complete_pending(self, view: memoryview, plain: memoryview, at: int) -> tuple[int, int]:
        """Give the record begun earlier what it lacks; how many bytes of `view` that took, and where `plain` ends."""
        start = max(0, LENGTH - len(self._pending))
        self._pending += view[:start]
        if len(self._pending) < LENGTH:
            return start, at
        lacking = self._check_pending() - len(self._pending)
        self._pending += view[start : start + lacking]
        if len(view) - start < lacking:
            return len(view), at
        record, self._pending = memoryview(self._pending)[LENGTH:], bytearray()
        end = at + len(record) - TAG
        self._open(_nonce(self._opened), record, None, plain[at:end])
        self._opened += 1
        return start + lacking, end

    def _check_pending(self) -> int:
        """How many bytes the record begun has in all, with its length, if that has come."""
        if len(self._pending) < LENGTH:
            return LENGTH
        size = self._pending[0] << 8 | self._pending[1]
        if size < TAG:
            raise ProtocolViolation(f"Noise record of {size} bytes, less than its tag")
        return LENGTH + size


class _Symmetric:
    """The `SymmetricState` of the Noise specification, section 5.2: transcript hash, chaining key, cipher."""

    def __init__(self, prologue: bytes) -> None:
        self._hash = self._chain = _NAME  # exactly 32 bytes, so it is its own hash
        self._cipher: ChaCha20Poly1305 | None = None
        self._count = 0  # messages under the present key
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self._chain, key = _hkdf(self._chain, secret)
        self._cipher, self._count = ChaCha20Poly1305(key), 0

    def encrypt(self, plain: bytes) -> bytes:
        sealed = plain if self._cipher is None else self._cipher.encrypt(_nonce(self._count), plain, self._hash)
        self._count += 1
        self.mix_hash(sealed)
        return sealed

    def decrypt(self, sealed: bytes) -> bytes:
        try:
            plain = sealed if self._cipher is None else self._cipher.decrypt(_nonce(self._count), sealed, self._hash)
        except InvalidTag:
            raise ProtocolViolation("a Noise handshake message does not authenticate") from None
        self._count += 1
        self.mix_hash(sealed)
        return plain

    def split(self) -> tuple[bytes, bytes]:
        """The keys of the records: initiator to responder, and back."""
        return _hkdf(self._chain, b"")


def _records(pieces: Sequence[Buffer]) -> Iterator[Buffer]:
    """`pieces` as plaintexts of at most `RECORD` bytes; one that fits is not copied unless it shares a record."""
    shared: list[Buffer] = []
    room = RECORD
    for piece in pieces:
        if len(piece) > room and shared:
            yield b"".join(shared)
            shared, room = [], RECORD
        if len(piece) > RECORD:
            view = memoryview(piece)
            yield from (view[start : start + RECORD] for start in range(0, len(view), RECORD))
        elif piece:
            shared.append(piece)
            room -= len(piece)
    if shared:
        yield shared[0] if len(shared) == 1 else b"".join(shared)


def _copying(work: Callable[[bytes, Buffer, None], bytes]) -> Callable[[bytes, Buffer, None, memoryview], object]:
    """What answers with bytes, in the shape of what puts them somewhere."""

    def into(nonce: bytes, data: Buffer, _: None, out: memoryview) -> None:
        out[:] = work(nonce, data, None)

    return into


def _framed(message: bytes) -> bytes:
    return _length.pack(len(message)) + message


def _public(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


def _dh(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # OpenSSL refuses the all-zero secret of a low-order point
        raise ProtocolViolation("unusable X25519 key in a Noise handshake") from None


def _hkdf(chain: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """The `HKDF` of the Noise specification, section 4.3, with two outputs."""
    base = hmac.digest(chain, secret, "sha256")
    first = hmac.digest(base, b"\x01", "sha256")
    return first, hmac.digest(base, first + b"\x02", "sha256")
