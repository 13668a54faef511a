"""The node's key: an Ed25519 key in a file that is made once, kept 0600, and never overwritten.

The file is libp2p's protobuf private key as peer-up writes it (wire spec 1.1; libp2p specs, peer-ids): `08 01` (type
Ed25519), `12 40` (64 bytes follow), the 32-byte seed, the 32-byte public key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from peerupd import files
from peerupd.model.errors import InvalidKeyFile
from peerupd.model.names import PeerId
from peerupd.wire.keys import PublicKey

MAX_KEY_FILE: Final = 64 * 1024  # bytes; more than any private key has, so that a wrong file is told as such

_PRIVATE: Final = bytes.fromhex("08011240")
_PUBLIC: Final = bytes.fromhex("08011220")
_SEED: Final = 32  # bytes


class Identity:
    """Who we are. Knows its secret and does not show it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = PublicKey.decode(_PUBLIC + key.public_key().public_bytes_raw())
        self.peer_id: PeerId = self.public_key.peer_id

    @classmethod
    def load(cls, path: Path) -> Identity:
        """The identity in `path`.

        Raises `NotFound`, `InsecurePermissions` (any bit for group or others), `InvalidKeyFile`, `StorageFailed`.
        """
        data = files.read_secret(path, MAX_KEY_FILE)
        key, public = data[len(_PRIVATE) : len(_PRIVATE) + _SEED], data[len(_PRIVATE) + _SEED :]
        if not data.startswith(_PRIVATE) or len(key) != _SEED or len(public) != _SEED:
            raise _invalid(path, "it is not an Ed25519 private key in libp2p's form")
        found = cls(Ed25519PrivateKey.from_private_bytes(key))
        if found.public_key.data != public:
            raise _invalid(path, "its public half does not belong to its private half")
        return found

    @classmethod
    def create(cls, path: Path) -> Identity:
        """A new identity, written to `path` (0600; a missing folder is made, 0700).

        Raises `AlreadyExists`, whatever stands there, and `StorageFailed`.
        """
        files.make_folder(path.parent)
        made = cls.generate()
        files.create(path, made._file_form(), mode=0o600)
        return made

    @classmethod
    def generate(cls) -> Identity:
        """A new identity, in memory only."""
        return cls(Ed25519PrivateKey.generate())

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature (64 bytes) of `data`."""
        return self._key.sign(data)

    def _file_form(self) -> bytes:
        return _PRIVATE + self._key.private_bytes_raw() + self.public_key.data

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"


def _invalid(path: Path, why: str) -> InvalidKeyFile:
    return InvalidKeyFile(f"cannot use the key file {path}: {why}", hint="restore it from a backup, or move it away")
