"""The rows of the matrix: what is shown with each foreign implementation, each way.

A scenario takes who dials and who is dialled, raises `Failed` where something is not as it must be, and returns a few
words for the cell. Both ways are the same scenario with the sides swapped, where that has a meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.interop.asking import Failed, Peer
from tests.interop.nodes import LIMIT_DATA, LIMIT_SECONDS, Home, Laptop, Ours
from tests.support.cluster import wait_for

MB = 1_000_000
NOISE = "/noise"
RELAYED_SIZE = 20 * MB  # bytes
SLOW_SIZE = 40 * MB  # bytes: more than all windows and buffers on the way
NOTE_SECONDS = 10.0  # for the other side to notice how a stream ended
SLACK_SECONDS = 6.0  # beside a limit of time, on a busy machine


class Asked(Protocol):
    """A peer of either side."""

    name: str

    def ask(self, do: str, **words: Any) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Wishes:
    """What differs between implementations and runs."""

    size: int
    """Bytes of the large transfers."""
    streams: int = 1000
    """At once, where we are dialled."""
    pause: float = 3.0
    """Seconds of a slow reader."""
    slack: float = SLACK_SECONDS
    """Beside a limit of time."""
    notes: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By row and way: what is the foreign side's own doing."""

    def of(self, names: Sequence[str]) -> list[Any]:
        """Those."""
        return [getattr(self, name) for name in names]


@dataclass(frozen=True)
class Company:
    """Everybody of one column."""

    wishes: Wishes
    accepting: Peer
    """Theirs: listens, relays without limits, prefers TLS."""
    dialling: Peer
    """Theirs: listens nowhere, offers TLS first."""
    limited: Peer
    """Theirs: a relay with limits."""
    noise_only: Peer
    """Theirs: offers Noise and nothing else; go-libp2p has its own limits here, and no others elsewhere."""
    host: Peer
    """Ours, in the same shape."""
    ours: Ours

    @property
    def laptop(self) -> Laptop:
        """Ours, over the direct path."""
        return Laptop(self.ours.laptop, "direct")

    @property
    def far_laptop(self) -> Laptop:
        """Ours, through the relay."""
        return Laptop(self.ours.laptop, "relay")

    @property
    def home(self) -> Home:
        """Ours, dialled directly."""
        return Home(self.ours, self.ours.home_address)

    def home_behind(self, relay: str) -> Home:
        """Ours, dialled through this relay."""
        return Home(self.ours, f"{relay}/p2p-circuit/p2p/{self.ours.home_id}")


def expect(what: bool, words: str) -> None:
    """Raise `Failed` with the words if it is not so."""
    if not what:
        raise Failed(words)


# -- scenarios: the connection -------------------------------------------------------------------------------------


def handshake(dialler: Peer, acceptor: Peer) -> str:
    """They come to a connection; what is said of its security is Noise."""
    found = dialler.ask("connect", address=acceptor.address)
    for key, wanted in (("security", NOISE), ("muxer", "/yamux/1.0.0")):
        expect(found.get(key, wanted) == wanted, f"{key} is {found.get(key)}")
    told = {"from": dialler.name} | {key: found[key] for key in ("security",) if key in found}
    return f"{told['security']} by {told['from']}" if "security" in told else "connected"


def reconnect(dialler: Peer, acceptor: Peer | Home) -> None:
    """A fresh connection over the acceptor's address, and over nothing else."""
    dialler.ask("disconnect", peer=acceptor.peer)
    dialler.ask("connect", address=acceptor.address)
    if isinstance(acceptor, Home):
        acceptor.await_caller(dialler.peer)


def identify(dialler: Peer, acceptor: Peer) -> str:
    """Each side learns all that the other one has to tell."""
    reconnect(dialler, acceptor)
    agents = []
    for one, other in ((dialler, acceptor), (acceptor, dialler)):
        told = one.ask("learned", peer=other.peer)
        expect(bool(told["agent"]), f"{one.name} learned no agent")
        missing = {f"/peerup/{service}/1.0.0" for service in ("echo", "sink")} - set(told["protocols"])
        expect(not missing, f"{one.name} did not learn of {missing}")
        _check_addresses(one, other, told)
        agents.append(told["agent"])
    return " ↔ ".join(agents)


def _check_addresses(one: Peer, other: Peer, told: dict[str, Any]) -> None:
    wanted = [re.sub("/p2p/.*", "", address) for address in other.addresses if address]
    for key in ("addresses", "signed"):
        known = [re.sub("/p2p/.*", "", address) for address in told.get(key, wanted)]
        expect(set(wanted) <= set(known), f"{one.name} learned {key} {known}, not {wanted}")
    expect("/ip4/127.0.0.1/tcp/" in told["observed"], f"{one.name} was told it is seen as {told['observed']!r}")


def push(dialler: Peer, acceptor: Peer) -> str:
    """What one side begins to serve, the other learns without asking."""
    for one, other in ((dialler, acceptor), (acceptor, dialler)):
        service = f"late-{dialler.peer[-6:].lower()}-{one.peer[-6:].lower()}"
        one.ask("serve", service=service)
        other.ask("learned", peer=one.peer, service=service)
    return "both told"


def ping(dialler: Peer, acceptor: Peer) -> str:
    """Both sides of the connection ping."""
    times = [
        one.ask("ping", peer=other.peer)["milliseconds"] for one, other in ((dialler, acceptor), (acceptor, dialler))
    ]
    return " and ".join(f"{each:.3g} ms" for each in times)


# -- scenarios: streams --------------------------------------------------------------------------------------------


def transfer(dialler: Asked, acceptor: Asked, size: int) -> str:
    """So many bytes each way, with their SHA-256."""
    speeds = []
    for do in ("download", "upload"):
        seen = dialler.ask(do, peer=acceptor.peer, size=size, seconds=110.0)
        expect(seen["right"] and seen["end"] == "eof", f"{do}: {seen}")
        speeds.append(f"{size / MB / seen['seconds']:.0f}")
    return f"{size // MB} MB, {speeds[0]} ↓ {speeds[1]} ↑ MB/s"


def half_close(dialler: Asked, acceptor: Asked) -> str:
    """The opener ends first and hears an answer; the acceptor ends first and hears more."""
    answered = dialler.ask("upload", peer=acceptor.peer, size=1000)
    expect(answered["right"], f"no answer after our end: {answered}")
    acceptor.ask("ends")
    heard = dialler.ask("half-close", peer=acceptor.peer)["heard"]
    expect(heard == "early\n", f"heard {heard!r} before the early end")
    _noted(acceptor, "eof 10")
    return "either first"


def reset(dialler: Asked, acceptor: Asked) -> str:
    """A reset of either side is seen as one by the other."""
    acceptor.ask("ends")
    dialler.ask("cut", peer=acceptor.peer)
    _noted(acceptor, "reset")
    seen = dialler.ask("be cut", peer=acceptor.peer)
    expect(seen["end"] == "reset", f"theirs or ours was seen as {seen}")
    return "seen, both directions"


def _noted(acceptor: Asked, wanted: str) -> None:
    ends: list[str] = []
    wait_for(f"an end at {acceptor.name}", lambda: ends.extend(acceptor.ask("ends")["ends"]) or ends, NOTE_SECONDS)
    expect(len(ends) == 1 and ends[0].startswith(wanted), f"{acceptor.name} saw {ends}, not {wanted!r}")


def many(dialler: Asked, acceptor: Asked, count: int) -> str:
    """So many streams, all open at once, each with content of its own."""
    seen = dialler.ask("many", peer=acceptor.peer, count=count, seconds=100.0)
    expect(seen["right"] == count, f"{seen['right']} of {count} were right: {seen['trouble']}")
    return f"{count} in {seen['seconds']:.1f} s" if "seconds" in seen else f"{count}"


def slow_reader(dialler: Asked, acceptor: Asked, pause: float) -> str:
    """Whoever reads stops for a while; nothing is lost."""
    for do in ("download", "upload slowly"):
        seen = dialler.ask(do, peer=acceptor.peer, size=SLOW_SIZE, pause=pause)
        expect(seen["right"] and seen["end"] == "eof", f"{do}: {seen}")
        expect(seen["seconds"] >= pause, f"{do} took only {seen['seconds']:.1f} s")
    return f"{SLOW_SIZE // MB} MB, {pause:g} s asleep"


# -- scenarios: relays ---------------------------------------------------------------------------------------------


def relayed(dialler: Asked, acceptor: Asked) -> str:
    """Everything that a stream can do, through the circuit that is there."""
    words = transfer(dialler, acceptor, RELAYED_SIZE)
    half_close(dialler, acceptor)
    reset(dialler, acceptor)
    return words


def through(dialler: Peer, acceptor: Home) -> str:
    """The same, over a circuit that the foreign peer makes."""
    reconnect(dialler, acceptor)
    return relayed(dialler, acceptor)


def voucher(asking: Peer, relay: str, relay_id: str) -> str:
    """A reservation whose voucher the asking side's library finds right."""
    told = asking.ask("reserve", address=relay)
    expect(told["relay"] == relay_id, f"the voucher is of {told['relay']}")
    expect(told["peer"] == asking.peer, f"the voucher is for {told['peer']}")
    expect(60 < told["life"] <= 7200 + 60, f"the voucher lives {told['life']:.0f} s")
    return f"{told['life'] / 60:.0f} min, opened by {asking.name}"


def data_limit(dialler: Asked, acceptor: Any) -> str:
    """A transfer beyond the limit is cut, and nobody takes it for whole."""
    seen = dialler.ask("download", peer=acceptor.peer, size=RELAYED_SIZE)
    expect(not seen["right"] and seen["got"] < RELAYED_SIZE, f"all came, in spite of the limit: {seen}")
    expect(seen["end"] != "eof", f"the cut looks like a clean end: {seen}")
    expect(seen["got"] <= LIMIT_DATA, f"more came than the limit lets through: {seen}")
    return f"{seen['end']} after {seen['got'] / MB:.1f} MB"


def time_limit(dialler: Asked, acceptor: Any, slack: float) -> str:
    """A circuit that lasts too long is cut, and nobody takes it for a clean end."""
    seen = dialler.ask("linger", peer=acceptor.peer)
    expect(seen["end"] != "eof", f"the cut looks like a clean end: {seen}")
    expect(seen["seconds"] <= LIMIT_SECONDS + slack, f"it came late: {seen}")
    return f"{seen['end']} after {seen['seconds']:.1f} s"


# -- rows ----------------------------------------------------------------------------------------------------------


def _we_use_their_relay(c: Company) -> str:
    c.ours.use_relay(c.accepting.address)
    words = relayed(c.far_laptop, c.home)
    c.dialling.ask("reserve", address=c.accepting.address)
    transfer(c.far_laptop, c.dialling, MB)
    return words


def _we_open_a_thousand(c: Company) -> str:
    words = many(c.host, c.accepting, 1000)
    c.ours.use_relay(c.noise_only.address)
    return f"{words}; by proxy {many(c.laptop, c.noise_only, 1000)}"


def _we_call_them_on_our_relay(c: Company) -> str:
    c.dialling.ask("reserve", address=c.ours.relay.multiaddr)
    c.ours.use_relay(c.ours.relay.multiaddr)
    return relayed(c.far_laptop, c.dialling)


def _they_use_our_relay(c: Company) -> str:
    words = through(c.dialling, c.home_behind(c.ours.relay.multiaddr))
    c.dialling.ask("reserve", address=c.ours.relay.multiaddr)
    c.limited.ask("connect", address=f"{c.ours.relay.multiaddr}/p2p-circuit/p2p/{c.dialling.peer}")
    transfer(c.limited, c.dialling, MB)
    return words


def _our_limit(scenario: Callable[..., str], *wishes: str) -> Callable[[Company], str]:
    def show(c: Company) -> str:
        home = c.home_behind(c.ours.limited.multiaddr)
        reconnect(c.dialling, home)
        return scenario(c.dialling, home, *c.wishes.of(wishes))

    return show


def _their_limit(scenario: Callable[..., str], *wishes: str) -> Callable[[Company], str]:
    def show(c: Company) -> str:
        c.ours.use_relay(c.limited.address)
        return scenario(c.far_laptop, c.home, *c.wishes.of(wishes))

    return show


def _we_call_them(scenario: Callable[..., str], *wishes: str) -> Callable[[Company], str]:
    def show(c: Company) -> str:
        c.ours.use_relay(c.accepting.address)
        return scenario(c.laptop, c.accepting, *c.wishes.of(wishes))

    return show


def _they_call_us(scenario: Callable[..., str], *wishes: str) -> Callable[[Company], str]:
    def show(c: Company) -> str:
        reconnect(c.dialling, c.home)
        return scenario(c.dialling, c.home, *c.wishes.of(wishes))

    return show


@dataclass(frozen=True)
class Row:
    """One line of the matrix, shown both ways."""

    title: str
    we_dial: Callable[[Company], str]
    they_dial: Callable[[Company], str]


ROWS = (
    Row("handshake, Noise", lambda c: handshake(c.host, c.noise_only), lambda c: handshake(c.noise_only, c.host)),
    Row("handshake, TLS preferred", lambda c: handshake(c.host, c.accepting), lambda c: handshake(c.dialling, c.host)),
    Row("identify", lambda c: identify(c.host, c.accepting), lambda c: identify(c.dialling, c.host)),
    Row("identify push", lambda c: push(c.host, c.accepting), lambda c: push(c.dialling, c.host)),
    Row("ping", lambda c: ping(c.host, c.accepting), lambda c: ping(c.dialling, c.host)),
    Row("large transfer, SHA-256", _we_call_them(transfer, "size"), _they_call_us(transfer, "size")),
    Row("half-close", _we_call_them(half_close), _they_call_us(half_close)),
    Row("reset", _we_call_them(reset), _they_call_us(reset)),
    Row("100 streams", lambda c: many(c.host, c.accepting, 100), _they_call_us(lambda d, a: many(d, a, 100))),
    Row("1,000 streams", _we_open_a_thousand, _they_call_us(many, "streams")),
    Row("slow reader", _we_call_them(slow_reader, "pause"), _they_call_us(slow_reader, "pause")),
    Row("their relay", _we_use_their_relay, lambda c: through(c.dialling, c.home_behind(c.accepting.address))),
    Row("our relay", _we_call_them_on_our_relay, _they_use_our_relay),
    Row(
        "reservation, voucher",
        lambda c: voucher(c.host, c.accepting.address, c.accepting.peer),
        lambda c: voucher(c.dialling, c.ours.relay.multiaddr, c.ours.relay.peer_id),
    ),
    Row("limit of data: theirs, ours", _their_limit(data_limit), _our_limit(data_limit)),
    Row("limit of time: theirs, ours", _their_limit(time_limit, "slack"), _our_limit(time_limit, "slack")),
)
