import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.errors import (
    AlreadyExists,
    InsecurePermissions,
    InvalidKeyFile,
    NotFound,
    RequestError,
    StorageFailed,
)
from peerupd.trust.identity import MAX_KEY_FILE, Identity
from peerupd.wire.keys import PublicKey

# wire spec 3.6: Ed25519 seeds of 32 equal bytes
KNOWN = {
    0x11: "12D3KooWPqT2nMDSiXUSx5D7fasaxhxKigVhcqfkKqrLghCq9jxz",
    0x22: "12D3KooWLdJAwPtyQ5RFnr9wGXsQzpf3P2SeqFbYkqbfVehLu4Ns",
    0x33: "12D3KooWBRFW3HkJCLKSWb4yG6iWRBpgNjbM4FFvNsL5T5JKTqrd",
}
RELAY_FILE = bytes.fromhex("08011240" + "11" * 32 + "d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737")


def key_file(path, data=RELAY_FILE, mode=0o600):
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_a_key_file_of_peer_up_is_who_it_was(tmp_path):
    identity = Identity.load(key_file(tmp_path / "relay_node.key"))

    assert str(identity.peer_id) == KNOWN[0x11]
    assert identity.public_key == PublicKey.decode(bytes.fromhex("08011220") + RELAY_FILE[-32:])


def test_what_it_signs_its_public_key_verifies(tmp_path):
    identity = Identity.load(key_file(tmp_path / "key"))

    signature = identity.sign(b"a message")

    identity.public_key.verify(signature, b"a message")
    assert len(signature) == 64


def test_a_new_identity_is_kept_for_its_owner_alone(tmp_path):
    path = tmp_path / "new" / "identity.key"

    made = Identity.create(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(path.read_bytes()) == 68
    assert Identity.load(path).peer_id == made.peer_id


def test_two_identities_are_two():
    assert Identity.generate().peer_id != Identity.generate().peer_id


def test_whatever_stands_there_is_never_overwritten(tmp_path):
    path = tmp_path / "identity.key"
    path.write_bytes(b"junk")

    with pytest.raises(AlreadyExists):
        Identity.create(path)

    assert path.read_bytes() == b"junk"


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageFailed):
        Identity.create(tmp_path / "file" / "identity.key")


def test_a_missing_key_is_missing_and_is_not_made(tmp_path):
    with pytest.raises(NotFound):
        Identity.load(tmp_path / "identity.key")

    assert os.listdir(tmp_path) == []


def test_a_key_that_others_may_read_is_refused_with_the_chmod(tmp_path):
    with pytest.raises(InsecurePermissions, match=r"permissions 0640 \(expected 0600\); fix with: chmod 600"):
        Identity.load(key_file(tmp_path / "key", mode=0o640))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not an Ed25519 private key"),
        (RELAY_FILE[:-1], "not an Ed25519 private key"),
        (RELAY_FILE + b"x", "not an Ed25519 private key"),
        (b"\x08\x02" + RELAY_FILE[2:], "not an Ed25519 private key"),
        (RELAY_FILE[:-1] + b"\x00", "public half does not belong"),
    ],
)
def test_a_file_that_is_no_key_is_named_and_left_alone(tmp_path, data, why):
    path = key_file(tmp_path / "key", data)

    with pytest.raises(InvalidKeyFile, match=why):
        Identity.load(path)

    assert path.read_bytes() == data


@given(st.binary(max_size=100))
def test_junk_is_an_invalid_key_file_and_nothing_else(tmp_path_factory, data):
    path = key_file(tmp_path_factory.mktemp("k") / "key", data)

    with pytest.raises(InvalidKeyFile):
        Identity.load(path)


def test_a_file_much_too_large_is_not_read(tmp_path):
    with pytest.raises(RequestError, match="too large"):
        Identity.load(key_file(tmp_path / "key", bytes(MAX_KEY_FILE + 1)))


def test_an_identity_shows_its_name_and_not_its_secret(tmp_path):
    identity = Identity.load(key_file(tmp_path / "key"))

    assert repr(identity) == str(identity) == f"Identity({KNOWN[0x11]})"


@pytest.mark.parametrize("byte", KNOWN)
def test_the_peer_ids_of_the_test_vectors(tmp_path, byte):

    assert str(Identity(Ed25519PrivateKey.from_private_bytes(bytes([byte]) * 32)).peer_id) == KNOWN[byte]
