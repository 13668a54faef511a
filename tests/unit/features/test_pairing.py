"""Pairing from the code to what both sides have written down: the two roles, and what goes wrong between them."""

import base64
import logging

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from trio.testing import wait_all_tasks_blocked

from peerupd.features import inviting
from peerupd.features.inviting import Inviting
from peerupd.features.joining import Joining
from peerupd.features.pairing import PROTOCOL, give_name
from peerupd.model.addresses import RelayAddress
from peerupd.model.errors import (
    ConnectionLost,
    EnvironmentalError,
    GateRefused,
    InvalidCode,
    InviteRefused,
    NoRelay,
    PairingMismatch,
    ProtocolUnsupported,
    ProtocolViolation,
    RelayRefused,
    RequestError,
    StorageFailed,
    StreamReset,
    TimedOut,
    UnknownInvite,
    Unreachable,
)
from peerupd.model.snapshots import InviteAsk
from peerupd.wire import invite
from peerupd.wire.invite import Invite
from peerupd.wire.pairing import Joiner
from tests.support.fakes import MemoryBooks, MemoryNetwork, MemoryRelay, memory_streams, peer_id

RELAY = RelayAddress.parse(f"/ip4/203.0.113.5/tcp/7777/p2p/{peer_id(100)}")
QUIC_RELAY = RelayAddress.parse(f"/ip4/203.0.113.5/udp/7777/quic-v1/p2p/{peer_id(101)}")
NOON = 1767268800.0  # 2026-01-01 12:00 UTC


class Gate:
    def __init__(self):
        self.until = None

    def invite_opened(self, until, /):
        self.until = until

    def invite_closed(self):
        self.until = None


class Home:
    """The inviter."""

    def __init__(self, village, number):
        self.host = village.network.host(number)
        self.peer = self.host.peer
        self.books = MemoryBooks()
        self.gate = Gate()
        self.relays = [QUIC_RELAY, RELAY]
        self.inviting = Inviting(
            own=self.peer,
            handlers=self.host,
            gate=self.gate,
            vouching=village.relay,
            relays=lambda: self.relays,
            allowlist=self.books,
            names=self.books,
            network="family",
            now=lambda: NOON,
        )

    async def open(self, name="home", ttl=600.0):
        return await self.inviting.open(InviteAsk(name, ttl))

    async def outcome(self, opened):
        with trio.fail_after(700):
            return await self.inviting.wait(opened.id)


class Laptop:
    """The joiner."""

    def __init__(self, village, number):
        self.village = village
        self.host = village.network.host(number)
        self.peer = self.host.peer
        self.books = MemoryBooks()
        self.reached = []
        self.trouble = {}
        self.joining = Joining(
            own=self.peer,
            reach_relay=self._reach,
            admission=village.relay,
            open_through=self._open,
            allowlist=self.books,
            names=self.books,
            relays=self.books,
            now=lambda: NOON,
        )

    async def _reach(self, relay, /):
        self.reached.append(relay)
        if "reach" in self.trouble:
            raise self.trouble["reach"]
        await trio.lowlevel.checkpoint()

    async def _open(self, relay, peer, protocols, /):
        assert relay == RELAY
        if "open" in self.trouble:
            raise self.trouble["open"]
        return await self.host.new_stream(peer, protocols)

    async def join(self, code, name="laptop", **more):
        return await self.joining.join(code, name, **more)


class Village:
    def __init__(self, nursery):
        self.network = MemoryNetwork(nursery)
        self.relay = MemoryRelay()
        self.home, self.laptop = Home(self, 1), Laptop(self, 2)


@pytest.fixture
async def village(nursery):
    made = Village(nursery)
    await nursery.start(made.home.inviting.run)
    return made


@pytest.fixture
def home(village):
    return village.home


@pytest.fixture
def laptop(village):
    return village.laptop


def wrong(code):
    """The same code with another token."""
    asked = invite.decode(code)
    return invite.encode(Invite(bytes(8), asked.relay, asked.inviter, asked.network))


# -- what pairing is for -------------------------------------------------------------------------------------------


async def test_both_sides_end_up_in_each_others_books(village, home, laptop):
    opened = await home.open()
    joined = await laptop.join(opened.code)
    outcome = await home.outcome(opened)

    assert home.books.allowlist == {laptop.peer: "laptop"}
    assert home.books.known == {"laptop": laptop.peer}
    assert laptop.books.allowlist == {home.peer: "home"}
    assert laptop.books.known == {"home": home.peer}
    assert laptop.books.relays == [RELAY]
    assert village.relay.kept == {laptop.peer: "laptop"}
    assert (joined.peer, joined.name, joined.relay, joined.network) == (home.peer, "home", RELAY, "family")
    assert (outcome.outcome, outcome.peer_id, outcome.name, outcome.notes) == (
        "joined",
        str(laptop.peer),
        "laptop",
        (),
    )


async def test_an_open_code_says_all_that_a_person_needs(home, village):
    opened = await home.open()
    asked = invite.decode(opened.code)
    assert (asked.relay, asked.inviter, asked.network) == (RELAY, home.peer, "family")
    assert (opened.id, opened.relay, opened.expires_at) == ("invite-1", str(RELAY), NOON + 600)
    assert opened.qr
    assert opened.notes == ()
    assert home.gate.until == NOON + 600
    assert list(village.relay.open_codes.values()) == [600.0]


async def test_the_doors_are_shut_behind_the_joiner(village, home, laptop):
    opened = await home.open()
    await laptop.join(opened.code)
    await home.outcome(opened)
    await wait_all_tasks_blocked()
    assert home.gate.until is None
    assert PROTOCOL not in home.host.handlers
    assert village.relay.open_codes == {}


async def test_the_joiner_is_told_each_step(home, laptop):
    said = []
    await laptop.join((await home.open()).code, progress=said.append)
    assert said == ["Connecting to relay...", "Connected to relay.", "Connecting to inviter..."]


async def test_without_names_the_books_hold_a_date(home, laptop):
    opened = await home.open(name="")
    joined = await laptop.join(opened.code, name="")
    outcome = await home.outcome(opened)
    assert home.books.allowlist == {laptop.peer: "joined-2026-01-01"}
    assert laptop.books.allowlist == {home.peer: "invited-2026-01-01"}
    assert home.books.known == laptop.books.known == {}
    assert (joined.name, outcome.name) == ("", None)


async def test_names_from_the_other_side_are_sanitised(home, laptop):
    opened = await home.open(name="\x1b]0;owned\x07home\n")
    await laptop.join(opened.code, name="--lap\x1b[31mtop")
    await home.outcome(opened)
    assert home.books.known == {"lap31mtop": laptop.peer}
    assert laptop.books.known == {"0ownedhome": home.peer}
    assert "\x1b" not in "".join(home.books.allowlist.values())


async def test_a_name_that_another_has_gets_a_number(home, laptop):
    home.books.known = {"laptop": peer_id(7), "laptop-2": peer_id(8)}
    opened = await home.open()
    await laptop.join(opened.code)
    assert (await home.outcome(opened)).name == "laptop-3"
    assert home.books.known["laptop-3"] == laptop.peer


async def test_pairing_again_changes_nothing(home, laptop):
    for _ in range(2):
        opened = await home.open()
        await laptop.join(opened.code)
        assert (await home.outcome(opened)).name == "laptop"
    assert home.books.known == {"laptop": laptop.peer}
    assert home.books.allowlist == {laptop.peer: "laptop"}


async def test_names_fit_and_are_no_peer_ids():
    books = MemoryBooks()
    assert await give_name(books, "x" * 99, peer_id(1)) == "x" * 64
    assert await give_name(books, "x" * 99, peer_id(2)) == "x" * 62 + "-2"
    assert await give_name(books, str(peer_id(3)), peer_id(4)) == ""
    assert len(books.known) == 2


async def test_names_run_out_at_last():
    books = MemoryBooks()
    for number in range(1, 101):
        await give_name(books, "pc", peer_id(number))
    assert await give_name(books, "pc", peer_id(101)) == ""
    assert await give_name(books, "pc", peer_id(50)) == "pc-50"


# -- how a code ends -----------------------------------------------------------------------------------------------


async def test_three_wrong_guesses_burn_the_code(village, home, laptop, caplog):
    opened = await home.open()
    for _ in range(3):
        with pytest.raises(PairingMismatch):
            await laptop.join(wrong(opened.code))
    outcome = await home.outcome(opened)
    assert outcome.outcome == "burned"
    with pytest.raises(InviteRefused):
        await laptop.join(opened.code)
    assert home.books.allowlist == laptop.books.allowlist == {}
    assert [r.peerup["event"] for r in caplog.records if r.levelno == logging.WARNING] == ["invite.wrong_guess"] * 3


async def test_two_wrong_guesses_leave_it_open(home, laptop):
    opened = await home.open()
    for _ in range(2):
        with pytest.raises(PairingMismatch):
            await laptop.join(wrong(opened.code))
    assert (await laptop.join(opened.code)).peer == home.peer


@pytest.mark.parametrize("junk", [b"", b"\x02", b"GET / HTTP/1.1\r\n\r\n", b"\x01" + bytes(32) + b"\xff\xff"])
async def test_junk_is_not_counted(village, home, laptop, junk):
    opened = await home.open()
    for _ in range(5):
        stream = await laptop.host.new_stream(home.peer, [PROTOCOL])
        await stream.send_all(junk)
        await stream.send_eof()
        with pytest.raises(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
    assert (await laptop.join(opened.code)).peer == home.peer


async def test_a_code_ends_with_its_time(village, home, laptop, autojump_clock):
    opened = await home.open(ttl=60)
    began = trio.current_time()
    assert (await home.outcome(opened)).outcome == "expired"
    assert trio.current_time() - began == pytest.approx(60)
    with pytest.raises(InviteRefused):
        await laptop.join(opened.code)
    assert home.gate.until is None


async def test_a_code_ends_with_its_first_success(home, laptop, village):
    opened = await home.open()
    await laptop.join(opened.code)
    await home.outcome(opened)
    with pytest.raises(InviteRefused, match="the relay does not know the code"):
        await Laptop(village, 3).join(opened.code)


async def test_behind_another_kind_of_relay_the_inviter_itself_refuses(home, laptop, village):
    opened = await home.open()
    await laptop.join(opened.code)
    await home.outcome(opened)
    village.relay.trouble = ProtocolUnsupported("a Go relay")
    with pytest.raises(InviteRefused, match="takes no joiner now"):
        await Laptop(village, 3).join(opened.code)


async def test_cancelled_is_over_at_once_and_stays_so(home):
    opened = await home.open()
    home.inviting.cancel(opened.id)
    assert (await home.outcome(opened)).outcome == "cancelled"
    home.inviting.cancel(opened.id)
    assert home.gate.until is None


async def test_another_code_cancels_the_first(home, laptop):
    first = await home.open()
    second = await home.open()
    assert (await home.outcome(first)).outcome == "cancelled"
    assert home.gate.until is not None
    home.inviting.cancel(first.id)
    assert (await laptop.join(second.code)).peer == home.peer


async def test_the_end_of_the_daemon_cancels_the_code(nursery, village):
    home = Home(village, 5)
    with trio.CancelScope() as life:
        async with trio.open_nursery() as inner:
            await inner.start(home.inviting.run)
            opened = await home.open()
            life.cancel()
    assert (await home.outcome(opened)).outcome == "cancelled"
    assert home.gate.until is None


async def test_old_outcomes_are_forgotten_in_the_end(home):
    first = await home.open()
    for _ in range(inviting.MAX_REMEMBERED):
        await home.open()
    with pytest.raises(UnknownInvite):
        await home.inviting.wait(first.id)
    with pytest.raises(UnknownInvite):
        home.inviting.cancel("invite-99")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1e9])
async def test_impossible_times_are_refused(home, seconds):
    with pytest.raises(RequestError, match="cannot live"):
        await home.open(ttl=seconds)


async def test_without_a_usable_relay_there_is_no_code(home):
    home.relays = [QUIC_RELAY]
    with pytest.raises(NoRelay):
        await home.open()


# -- while a joiner is being written down --------------------------------------------------------------------------


async def test_a_second_holder_of_the_code_is_not_let_in(village, home, laptop, nursery, autojump_clock):
    home.books.slowness = 5
    opened = await home.open()
    nursery.start_soon(laptop.join, opened.code)
    await wait_all_tasks_blocked()
    with pytest.raises(PairingMismatch):
        await Laptop(village, 3).join(opened.code)
    assert (await home.outcome(opened)).peer_id == str(laptop.peer)
    assert list(home.books.allowlist) == [laptop.peer]


@pytest.mark.parametrize("event", ["time", "cancel", "another"])
async def test_a_joiner_in_the_door_comes_in(home, laptop, nursery, autojump_clock, event):
    home.books.slowness = 5
    opened = await home.open(ttl=3 if event == "time" else 600)
    nursery.start_soon(laptop.join, opened.code)
    await trio.sleep(1)
    if event == "cancel":
        home.inviting.cancel(opened.id)
    if event == "another":
        await home.open()
    assert (await home.outcome(opened)).outcome == "joined"
    assert laptop.peer in home.books.allowlist
    assert (home.gate.until is not None) is (event == "another")


async def test_a_joiner_that_cannot_be_written_down_is_refused_and_may_come_again(home, laptop, caplog):
    opened = await home.open()
    home.books.trouble = StorageFailed("the disk is full")
    with pytest.raises(InviteRefused, match="server error"):
        await laptop.join(opened.code)
    home.books.trouble = None
    assert laptop.books.allowlist == {}
    assert (await laptop.join(opened.code)).peer == home.peer
    assert (await home.outcome(opened)).outcome == "joined"


async def test_refused_after_the_time_it_is_expired(home, laptop, autojump_clock):
    home.books.slowness, home.books.trouble = 5, StorageFailed("the disk is full")
    opened = await home.open(ttl=3)
    with pytest.raises(InviteRefused):
        await laptop.join(opened.code)
    assert (await home.outcome(opened)).outcome == "expired"


async def test_a_name_that_cannot_be_written_is_a_note(home, laptop):
    home.books.name_trouble = StorageFailed("the disk is full")
    opened = await home.open()
    await laptop.join(opened.code)
    outcome = await home.outcome(opened)
    assert outcome.outcome == "joined"
    assert outcome.name is None
    assert "'laptop' could not be written down: the disk is full" in outcome.notes[0]


async def test_the_answer_is_given_time_to_arrive(village, home, laptop, autojump_clock):
    opened = await home.open()
    stream = await laptop.host.new_stream(home.peer, [PROTOCOL])
    machine = a_joiner(opened.code)
    await dance(machine, stream)
    await trio.sleep(1.5)  # a slow relay
    assert await stream.receive_some()
    assert await stream.receive_some() == b""
    await stream.aclose()
    assert (await home.outcome(opened)).notes == ()


async def test_a_joiner_that_never_leaves_is_left_after_two_seconds(village, home, laptop, autojump_clock):
    opened = await home.open()
    stream = await laptop.host.new_stream(home.peer, [PROTOCOL])
    await dance(a_joiner(opened.code), stream)
    began = trio.current_time()
    assert (await home.outcome(opened)).outcome == "joined"
    assert trio.current_time() - began <= 2.0


async def test_a_joiner_that_went_away_before_the_answer_is_joined_with_a_note(home, laptop, autojump_clock):
    home.books.slowness = 1
    opened = await home.open()
    stream = await laptop.host.new_stream(home.peer, [PROTOCOL])
    await dance(a_joiner(opened.code), stream)
    await trio.sleep(0.5)
    stream.reset()
    outcome = await home.outcome(opened)
    assert outcome.outcome == "joined"
    assert "may not have reached" in outcome.notes[0]


async def test_a_joiner_that_takes_no_answer_is_joined_with_a_note(home, autojump_clock):
    opened = await home.open()
    near, far = memory_streams(window=40)
    async with trio.open_nursery() as dialogue:
        dialogue.start_soon(home.host.handlers[PROTOCOL], far)
        await dance(a_joiner(opened.code), near)
    assert "may not have reached" in (await home.outcome(opened)).notes[0]


def a_joiner(code):
    return Joiner(invite.decode(code).token, "laptop")


async def dance(machine, stream):
    """The joiner's steps up to its proof."""
    await stream.send_all(machine.start())
    got = b""
    while len(got) < 32:
        got += await stream.receive_some()
    for event in machine.receive(got):
        await stream.send_all(event.data)


# -- limits of the dialogue ----------------------------------------------------------------------------------------


async def test_a_silent_joiner_has_30_seconds(home, laptop, autojump_clock):
    await home.open()
    stream = await laptop.host.new_stream(home.peer, [PROTOCOL])
    began = trio.current_time()
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    assert trio.current_time() - began == pytest.approx(30)


async def test_four_joiners_are_heard_at_once(home, laptop, autojump_clock):
    opened = await home.open()
    streams = [await laptop.host.new_stream(home.peer, [PROTOCOL]) for _ in range(5)]
    await wait_all_tasks_blocked()
    with pytest.raises(trio.BrokenResourceError):
        await streams[4].receive_some()
    streams[0].reset()
    await wait_all_tasks_blocked()
    assert (await laptop.join(opened.code)).peer == home.peer


async def test_a_stream_that_comes_after_the_end_is_reset(home):
    opened = await home.open()
    handler = home.host.handlers[PROTOCOL]
    home.inviting.cancel(opened.id)
    near, far = memory_streams()
    await handler(far)
    with pytest.raises(trio.BrokenResourceError):
        await near.receive_some()


async def test_a_dialogue_that_outlives_its_code_lets_nobody_in(home, laptop):
    opened = await home.open()
    stream = await laptop.host.new_stream(home.peer, [PROTOCOL])
    await stream.send_all(b"")
    await wait_all_tasks_blocked()
    home.inviting.cancel(opened.id)
    await dance(a_joiner(opened.code), stream)
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    assert home.books.allowlist == {}


# -- relays --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [ProtocolUnsupported("no vouching here"), "silence"])
async def test_a_relay_that_cannot_vouch_is_a_note(village, home, laptop, autojump_clock, trouble):
    village.relay.silent = trouble == "silence"
    village.relay.trouble = None if trouble == "silence" else trouble
    opened = await home.open()
    assert "its owner must authorise the joiner first" in opened.notes[0]
    village.relay.silent, village.relay.trouble = False, ProtocolUnsupported("no vouching here")
    await laptop.join(opened.code)  # the relay knows it by another way
    outcome = await home.outcome(opened)
    assert outcome.outcome == "joined"
    assert outcome.notes[0] == opened.notes[0]
    assert f"owner must authorise {laptop.peer}" in outcome.notes[1]


async def test_the_joiner_proves_itself_at_the_relay(village, home, laptop):
    opened = await home.open()
    await laptop.join(opened.code)
    assert laptop.reached == [RELAY]
    assert village.relay.proved == 1


async def test_a_relay_out_of_reach_is_named(home, laptop):
    opened = await home.open()
    laptop.trouble["reach"] = Unreachable("connection refused")
    with pytest.raises(Unreachable, match=r"cannot reach the relay of the code, /ip4/203\.0\.113\.5"):
        await laptop.join(opened.code)


@pytest.mark.parametrize("trouble", [ConnectionLost("gone"), GateRefused("who are you")])
async def test_a_relay_that_hangs_up_does_not_know_us(village, home, laptop, trouble):
    opened = await home.open()
    village.relay.trouble = trouble
    with pytest.raises(GateRefused, match=f"peerupctl relay authorize {laptop.peer}"):
        await laptop.join(opened.code)


async def test_a_relay_that_shuts_us_out_at_once_is_told_in_the_same_words(home, laptop):
    opened = await home.open()
    laptop.trouble["reach"] = GateRefused("closed the connection after the handshake")
    with pytest.raises(GateRefused, match="the code is over, or the relay knows no codes"):
        await laptop.join(opened.code)


@pytest.mark.parametrize(
    ("trouble", "raised", "words"),
    [
        (RelayRefused("the peer is not connected"), Unreachable, "is `peerupctl invite` still waiting there"),
        (StreamReset("reset"), InviteRefused, "takes no joiner now"),
        (ConnectionLost("gone"), InviteRefused, "takes no joiner now"),
        (ProtocolViolation("odd bytes"), ProtocolViolation, "odd bytes"),
    ],
)
async def test_what_keeps_us_from_the_inviter_is_told(home, laptop, trouble, raised, words):
    opened = await home.open()
    laptop.trouble["open"] = trouble
    with pytest.raises(raised, match=words) as told:
        await laptop.join(opened.code)
    assert "authorize" not in str(told.value)
    assert laptop.books.allowlist == {}


async def test_where_a_relay_knows_no_codes_its_owner_is_named(village, home, laptop):
    opened = await home.open()
    village.relay.trouble = ProtocolUnsupported("a Go relay")
    laptop.trouble["open"] = RelayRefused("it does not let us")
    with pytest.raises(Unreachable, match=f"peerupctl relay authorize {laptop.peer}"):
        await laptop.join(opened.code)


async def test_a_code_that_the_relay_does_not_know_is_told_so(village, home, laptop):
    opened = await home.open()
    laptop.trouble["open"] = RelayRefused("it does not let us")
    with pytest.raises(InviteRefused, match="the relay does not know the code: vouch: no such code"):
        await laptop.join(wrong(opened.code))


async def test_a_relay_that_knows_us_needs_no_proof(village, home, laptop):
    opened = await home.open()
    village.relay.open_codes.clear()
    assert (await laptop.join(opened.code)).peer == home.peer


# -- the joiner's own mistakes and limits --------------------------------------------------------------------------


async def test_what_is_no_code_is_refused_before_anything_is_dialled(laptop):
    with pytest.raises(InvalidCode):
        await laptop.join("hello")
    assert laptop.reached == []


async def test_your_own_code_is_for_the_other_machine(laptop):
    own = invite.encode(Invite(bytes(8), RELAY, laptop.peer))
    with pytest.raises(RequestError, match="this is your own invite code"):
        await laptop.join(own)


async def test_joining_has_30_seconds_in_all(home, laptop, autojump_clock, village):
    opened = await home.open()
    village.relay.silent = True
    began = trio.current_time()
    with pytest.raises(TimedOut, match="longer than 30 s"):
        await laptop.join(opened.code)
    assert trio.current_time() - began == pytest.approx(30)


async def test_an_inviter_that_ends_at_once_refuses(village, laptop):
    async def shut(stream):
        await stream.aclose()

    other = village.network.host(9)
    other.set_stream_handler(PROTOCOL, shut)
    village.relay.trouble = ProtocolUnsupported("a Go relay")
    with pytest.raises(InviteRefused, match="before it began"):
        await laptop.join(invite.encode(Invite(bytes(8), RELAY, other.peer)))


async def test_a_go_inviter_closes_upon_a_wrong_code_and_that_is_a_mismatch(village, laptop):
    async def go(stream):
        await stream.receive_some()
        await stream.send_all(X25519PrivateKey.generate().public_key().public_bytes_raw())
        await stream.receive_some()
        await stream.aclose()

    other = village.network.host(9)
    other.set_stream_handler(PROTOCOL, go)
    village.relay.trouble = ProtocolUnsupported("a Go relay")
    with pytest.raises(PairingMismatch):
        await laptop.join(invite.encode(Invite(bytes(8), RELAY, other.peer)))


async def test_a_joiner_that_cannot_write_says_so(home, laptop):
    opened = await home.open()
    laptop.books.trouble = StorageFailed("the disk is full")
    with pytest.raises(StorageFailed):
        await laptop.join(opened.code)
    assert issubclass(StorageFailed, EnvironmentalError)


async def test_an_inviter_of_the_text_dialect_is_joined_where_that_was_allowed(village, laptop):
    inviter, heard = village.network.host(3), []

    async def text_inviter(stream):
        heard.append(await stream.receive_some())
        await stream.send_all(b"OK old\n")
        await stream.send_eof()

    inviter.set_stream_handler(PROTOCOL, text_inviter)
    code = legacy_code(b"\xa0" * 8, RELAY, inviter.peer)
    with pytest.raises(InvalidCode, match="--allow-legacy"):
        await laptop.join(code)
    with trio.fail_after(30):
        pairing = await laptop.join(code, allow_legacy=True)
    assert (pairing.name, heard) == ("old", [b"a0a0a0a0a0a0a0a0 laptop\n"])
    assert inviter.peer in laptop.books.allowlist


def legacy_code(token, relay, inviter):
    address = bytes((203, 0, 113, 5)) + relay.address.port.to_bytes(2, "big")
    body = bytes((1,)) + token + address + bytes((len(relay.peer.multihash),)) + relay.peer.multihash
    return base64.b32encode(body + inviter.multihash).decode().rstrip("=")
