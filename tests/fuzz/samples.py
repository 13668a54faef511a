"""Valid things to begin with: keys, signatures, addresses, drawn values."""

from __future__ import annotations

from base64 import b64decode
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from peerupd.model.addresses import Multiaddr
from peerupd.model.names import PeerId
from peerupd.wire.keys import KeyType, PublicKey

T = TypeVar("T")

ALICE, BOB = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
SIGNED = b"signed by a fuzz target"

RSA = b64decode(
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAoph4JdS9Fxpjz8yj0ObOXS3wt/JuWaxZfGWU3PD6emEKdBsFD+GTBIXxyj+FWElOsL+3"
    "HowTo0D2SsYlQo9U7drzDUiLSNzJuCcKRF+EpTt6CKO8omWjF7owzfy0rX6F44VhOO16xYdjcKWqX0F17cCD3GLZ9SbjtdksEWbJbXef0KXsc3Cf"
    "FAhSF599y8m0k2d+cZ3yaqy5AEijpMAtoty+mCwDxDxiAg5zod0HCV06U9dKSvOLUVMGA26icpUOstLqcIkd3dqc2L8qu9CVupoTAtRuafVqRXU2"
    "jv1XGfOqew3/lhkD7JcPwFMbMdPrwG3RjKPP+jwvqRKM+LZ4twIDAQAB"
)
RSA_SIGNATURE = b64decode(
    "bQovC7OaOyzKjwZDaedo1GsT/4Ef2mIecNSiqQRk2mYgnsPMl4uFvc6yOg92PvMM2K5pxLktd0puKlZgo/hAiRSlg0jSIKbpnIpb66kG5YW9TvA3"
    "BY0are16hU7KOlEbsnd6EtkDbDJN+ixltoE5sqKqTXN5uRLIx/LTYjWJzUq6+CH0q9Zp9m4dftSNrABj9fSIF/tBGmVvuGr+0hNba4Lr5N75UGcX"
    "L6RpW2EJ/5yXemAh9b+Dekk2i4aFXnX2VLZM3UVfIlUYfdySBGxiGmYYj++BV4LEyzjA9DWkLhPp8dGc2jcjud6wsrp7CZ1F5HW/q+9gkhsDE0Fv"
    "A2IaKg=="
)
RSA_TOO_SHORT = b64decode(
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDAPHCst7HB0C6E2yuHPbvoqHq+fR/U/tponcwGGmpjOKvoROMMnqr/EHvd7sI9Vvh9N80Wv1Do"
    "3VsHTiw3N3pYpL04mpUjxd5uTsAeqAVopSxrWUugK7pXwThHq8y4Axwuz9N17VS9UBh3CKGSR5xhNeZf8HQIhiN3COW2WbSLTQIDAQAB"
)
P256 = b64decode(
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmnzDsdViO9KUlIAU/M7PX2g9kUoN2Vrcf/C43owFefkLJIR4nCr2MCalbI0CWM9pnoSTCxNpEYuY"
    "LhjFPlajSg=="
)
P256_SIGNATURE = b64decode(
    "MEUCIEL/QHQgCGCtpXhBA+TKGhixpvSv28lzxb1pZXoIZMdvAiEAl+FjLKveapahQG1POH/osislL4YG3wdaMDeSfJv4gRI="
)
SECP256K1 = b64decode("AwzZijC8qoArzz6RbqvvgeJurQ8pSaHTloCvmYyV3hEA")
SECP256K1_SIGNATURE = b64decode(
    "MEUCIEGngbwDy8zsFHvmDl8l0MgVlykI548o62rOaQsilYMzAiEAh00OC/VKhGz56RlQ8XdXVjhTGUFB9LT+zj0kr9fLGes="
)

SIGNED_BY = (
    (PublicKey(KeyType.RSA, RSA), RSA_SIGNATURE),
    (PublicKey(KeyType.ED25519, ALICE.public_key().public_bytes_raw()), ALICE.sign(SIGNED)),
    (PublicKey(KeyType.SECP256K1, SECP256K1), SECP256K1_SIGNATURE),
    (PublicKey(KeyType.ECDSA, P256), P256_SIGNATURE),
)
"""Keys of all kinds, with their signature of `SIGNED`."""

PEER = PeerId.parse("12D3KooWQeqs8JGbw7PJw5MBqnLK5JSoLRTw1Asmvw2eUUxYb3Q2")
HASHED = PublicKey(KeyType.RSA, RSA).peer_id

ADDRESSES = tuple(
    map(
        Multiaddr.parse,
        (
            "/ip4/203.0.113.50/tcp/7777",
            f"/ip6/2001:db8::1/tcp/4001/p2p/{PEER}",
            "/dns4/relay.example.org/udp/443/quic-v1",
            f"/ip4/203.0.113.50/tcp/7777/p2p/{PEER}/p2p-circuit/p2p/{HASHED}",
            "/dns/example.org/tcp/443/tls/sni/example.org/ws",
        ),
    )
)


def public_of(private: Ed25519PrivateKey) -> PublicKey:
    """The public half as libp2p has it."""
    return PublicKey(KeyType.ED25519, private.public_key().public_bytes_raw())


def drawn(strategy: st.SearchStrategy[T], count: int = 12) -> list[T]:
    """Some values of a strategy, the same ones each time."""
    found: list[T] = []

    @settings(
        derandomize=True,
        database=None,
        max_examples=count,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: T) -> None:
        found.append(value)

    collect()
    return found
