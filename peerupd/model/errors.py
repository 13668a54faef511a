"""Errors, by the question they answer: whose fault is it, and what to do next.

Four families, and each door (HTTP, command line) maps by family alone:

    RequestError         you asked for something that cannot be
    RefusedError         someone decided no
    RemoteError          the other side broke the rules, or our trust
    EnvironmentalError   the world is in the way

Anything that is not a `PeerupError` is a bug. The message says what was wanted and what was given; `hint` says what
to do next, and may be shown to a person as it is.
"""

from __future__ import annotations

from typing import ClassVar


class PeerupError(Exception):
    """The root of all expected errors; never raised itself."""

    code: ClassVar[str] = "internal"
    exit_status: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class RequestError(PeerupError):
    """You asked for something that cannot be."""

    code = "bad-request"
    exit_status = 2


class RefusedError(PeerupError):
    """Someone decided no."""

    code = "refused"
    exit_status = 3


class RemoteError(PeerupError):
    """The other side broke the rules, or our trust."""

    code = "remote-fault"
    exit_status = 4


class EnvironmentalError(PeerupError):
    """The world is in the way."""

    code = "environment"
    exit_status = 5


# -- RequestError --------------------------------------------------------------------------------------------------


class InvalidName(RequestError):
    """A peer, service or network name that breaks the grammar, or is reserved."""

    code = "invalid-name"


class InvalidAddress(RequestError):
    """A multiaddr, `host:port` or relay address that cannot be read."""

    code = "invalid-address"


class InvalidPeerId(RequestError):
    """Text or bytes that are not a libp2p peer ID."""

    code = "invalid-peer-id"


class InvalidCode(RequestError):
    """An invite code that cannot be read, or is of a kind that this program does not speak."""

    code = "invalid-code"


class LegacyCode(InvalidCode):
    """An invite code of the text dialect of older peer-up, whose pairing shows the secret to whoever answers."""

    code = "legacy-code"


class InvalidKeyFile(RequestError):
    """An identity file that cannot be read or is not a private key; it is never overwritten."""

    code = "invalid-key-file"


class ConfigInvalid(RequestError):
    """A configuration with problems: all of them, one text each, as `line N: key: what was wanted`."""

    code = "config-invalid"

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__("\n  ".join((message, *problems)), hint=hint)
        self.problems = problems


class AllowlistInvalid(RequestError):
    """An allowlist that cannot be used as it is."""

    code = "allowlist-invalid"


class InsecurePermissions(RequestError):
    """A secret that others can read; the hint is the `chmod` to run."""

    code = "insecure-permissions"


class NotFound(RequestError):
    """The base of everything that was named and is not there."""

    code = "not-found"


class ConfigNotFound(NotFound):
    """No configuration where it was looked for."""

    code = "config-not-found"


class UnknownPeer(NotFound):
    """Neither a peer ID nor a name of the configuration."""

    code = "unknown-peer"


class UnknownService(NotFound):
    """No such service here."""

    code = "unknown-service"


class UnknownProxy(NotFound):
    """No such proxy here."""

    code = "unknown-proxy"


class UnknownInvite(NotFound):
    """No such open invite here."""

    code = "unknown-invite"


class Conflict(RequestError):
    """The base of everything that is already there, or in use."""

    code = "conflict"


class AlreadyExists(Conflict):
    """A file, service, peer or address that exists already."""

    code = "already-exists"


class DaemonAlreadyRunning(Conflict):
    """Another daemon answers at this control socket."""

    code = "daemon-already-running"


# -- RefusedError --------------------------------------------------------------------------------------------------


class NotAuthorized(RefusedError):
    """The caller may not do this."""

    code = "not-authorized"


class Unauthenticated(RefusedError):
    """The caller did not show the cookie."""

    code = "unauthenticated"


class GateRefused(RefusedError):
    """A gate (ours or the far one) does not know this peer."""

    code = "gate-refused"


class LimitReached(RefusedError):
    """A named bound was reached, here or at the relay."""

    code = "limit-reached"


class RelayRefused(RefusedError):
    """The relay answered no; the message carries its status."""

    code = "relay-refused"


class InviteRefused(RefusedError):
    """The inviter answered no, or the code is burned or over."""

    code = "invite-refused"


# -- RemoteError ---------------------------------------------------------------------------------------------------


class ProtocolViolation(RemoteError):
    """Bytes that the protocol does not allow: the connection that carried them is closed."""

    code = "protocol-violation"


class FrameTooLarge(ProtocolViolation):
    """A length above the named limit, refused before a byte of the body is kept."""

    code = "frame-too-large"


class PairingMismatch(RemoteError):
    """The other side does not hold the same invite code."""

    code = "pairing-mismatch"


class WrongPeer(RemoteError):
    """Somebody else answers at this address."""

    code = "wrong-peer"


class ProtocolUnsupported(RemoteError):
    """The peer does not speak any of the protocols asked for."""

    code = "protocol-unsupported"


class StreamReset(RemoteError):
    """The other side reset the stream: what was read may be cut short."""

    code = "stream-reset"


# -- EnvironmentalError --------------------------------------------------------------------------------------------


class Unreachable(EnvironmentalError):
    """No path to the peer could be made."""

    code = "unreachable"


class ConnectionLost(EnvironmentalError):
    """The connection broke under the stream."""

    code = "connection-lost"


class NoRelay(EnvironmentalError):
    """No relay is configured, or none holds a slot for us."""

    code = "no-relay"


class ServiceDown(EnvironmentalError):
    """Nothing answers at the local address of a service."""

    code = "service-down"


class AddressInUse(EnvironmentalError):
    """The port or socket is taken by another program."""

    code = "address-in-use"


class DaemonNotRunning(EnvironmentalError):
    """No daemon answers at the control socket."""

    code = "daemon-not-running"


class StorageFailed(EnvironmentalError):
    """A file could not be read or written (full disk, missing rights); nothing was changed."""

    code = "storage-failed"


class TimedOut(EnvironmentalError):
    """It took longer than its limit."""

    code = "timed-out"
