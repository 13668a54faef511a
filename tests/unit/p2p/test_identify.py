"""Identify and ping against peers that do not behave, and the book's bounds."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from peerupd.model.addresses import Multiaddr
from peerupd.model.errors import ConnectionLost, ProtocolViolation, TimedOut
from peerupd.model.names import PeerId
from peerupd.p2p import ping
from peerupd.p2p.book import MAX_ADDRESSES, UNKNOWN, Book, Entry
from peerupd.p2p.connection import Connection
from peerupd.p2p.identify import LIMIT, MAX_PUSHES, Identifier, Self
from peerupd.p2p.serving import Serving
from peerupd.p2p.streams import Stream
from peerupd.trust.identity import Identity
from peerupd.wire.envelope import open_record
from peerupd.wire.framing import frame
from peerupd.wire.identify import MAX_IDENTIFY, MAX_PROTOCOLS, PROTOCOL, PUSH_PROTOCOL, Identify
from tests.support.hosts import connected

HERE = Multiaddr.parse("/ip4/192.0.2.5/tcp/4001")


class Open:
    """An admission that says yes."""

    def serves(self, _connection: object, _protocol: str) -> bool:
        return True


def serving(**handlers: object) -> Serving:
    made = Serving(Open())  # type: ignore[arg-type]
    for name, handler in handlers.items():
        made.set({"identify": PROTOCOL, "push": PUSH_PROTOCOL, "ping": ping.PROTOCOL}[name], handler)  # type: ignore[arg-type]
    return made


def identifier() -> tuple[Identifier, Book]:
    book = Book()
    own = Self(Identity.generate(), "peerup/test", lambda: [HERE], lambda: ["/x"])
    return Identifier(own, book), book


async def ask(handler: object) -> tuple[Book, Connection]:
    """What the book holds after asking a peer that answers by `handler`."""
    asker, book = identifier()
    async with connected(serving(identify=handler).serve) as pair:
        await asker.ask(pair.first)
        assert pair.first.identified.is_set()
        assert not pair.first.closed.is_set()
    return book, pair.first


@pytest.mark.parametrize("seen", ["/dns4/example.com/tcp/80", "/p2p-circuit", "/ip4/192.0.2.9/udp/4001/quic-v1"])
async def test_only_an_ip_address_and_a_tcp_port_can_be_what_a_peer_sees_of_us(seen: str) -> None:
    """We tell others, and they call there: it must not be just anything."""

    async def liar(stream: Stream) -> None:
        await stream.send_all(frame(Identify(agent_version="x", observed_addr=Multiaddr.parse(seen)).encode()))

    book, connection = await ask(liar)
    assert book.get(connection.peer).agent == "x"
    assert book.observed() == []


async def test_what_a_well_behaved_peer_tells_is_kept() -> None:
    answerer, _ = identifier()
    book, connection = await ask(answerer.answer)
    entry = book.get(connection.peer)
    assert (entry.agent, entry.addresses, entry.protocols) == ("peerup/test", (HERE,), frozenset({"/x"}))
    assert entry.observed == connection.remote


async def test_more_services_than_others_read_are_announced_as_far_as_they_fit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    services = [f"/peerup/service-number-{number:03}-with-quite-a-long-name/1.0.0" for number in range(400)]
    own = Self(Identity.generate(), "peerup/test", lambda: [HERE] * 64, lambda: [*services, PROTOCOL, "/x"])
    teller = Identifier(own, Book())
    book, connection = await ask(teller.answer)
    told = book.get(connection.peer).protocols
    assert len(told) == MAX_PROTOCOLS
    assert {PROTOCOL, "/x", services[0]} <= told
    assert "146 of 402 protocols are served but not announced" in caplog.text
    await ask(teller.answer)
    assert caplog.text.count("not announced") == 1


async def test_our_answer_carries_a_record_that_we_signed_with_a_growing_number() -> None:
    answerer, _ = identifier()
    records = []
    async with connected(serving(identify=answerer.answer).serve) as pair:
        for _ in range(2):
            stream = await pair.first.open_stream([PROTOCOL])
            body = b""
            while more := await stream.receive_some():
                body += more
            records.append(open_record(Identify.decode(body[2:]).signed_record))
    assert [r.addresses for r in records] == [(HERE,), (HERE,)]
    assert records[0].seq < records[1].seq


@pytest.mark.parametrize(
    "told", [b"", b"\xff" * 40, frame(b"\xff\xff\xff"), frame(bytes(MAX_IDENTIFY - 8)) * 3, b"\x80\x80\x80\x80\x04"]
)
async def test_an_answer_that_is_nonsense_leaves_the_connection_and_the_book_alone(told: bytes) -> None:
    async def handler(stream: Stream) -> None:
        await stream.send_all(told)

    book, connection = await ask(handler)
    assert book.get(connection.peer).agent == ""


async def test_a_bug_in_reading_an_answer_ends_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_messages: object) -> Identify:
        raise ZeroDivisionError("a bug in reading")

    monkeypatch.setattr(Identify, "merge", broken)
    book, connection = await ask(identifier()[0].answer)
    assert book.get(connection.peer).agent == ""
    assert "a bug in reading" in caplog.text


async def test_a_peer_that_never_answers_holds_nobody_up(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(stream: Stream) -> None:
        await trio.sleep_forever()

    began = trio.current_time()
    await ask(handler)
    assert trio.current_time() - began == pytest.approx(LIMIT)


async def test_addresses_that_name_somebody_else_are_left_out_and_few_are_kept() -> None:
    other = Identity.generate().peer_id
    lies = [HERE.with_peer(other), HERE, HERE]
    many = [Multiaddr.parse(f"/ip4/192.0.2.5/tcp/{port}") for port in range(1, 100)]

    async def handler(stream: Stream) -> None:
        await stream.send_all(frame(Identify(listen_addrs=(*lies, *many)).encode()))

    book, connection = await ask(handler)
    assert book.get(connection.peer).addresses == (HERE, *many)[:MAX_ADDRESSES]


async def test_pushes_are_taken_but_not_too_many() -> None:
    taker, book = identifier()
    async with connected(serving(push=taker.take_push).serve) as pair:
        for number in range(MAX_PUSHES + 3):
            try:
                stream = await pair.first.open_stream([PUSH_PROTOCOL])
                await stream.send_all(frame(Identify(agent_version=f"agent/{number}").encode()))
                await stream.send_eof()
                assert await stream.receive_some() == b""
            except trio.BrokenResourceError:
                break
        assert number == MAX_PUSHES
        assert book.get(pair.second.peer).agent == f"agent/{MAX_PUSHES - 1}"


async def test_a_push_that_is_not_welcome_is_forgotten() -> None:
    teller, _ = identifier()
    async with connected(serving().serve) as pair, trio.open_nursery() as nursery:
        pair.first.identified.set()
        nursery.start_soon(teller.push, lambda: [pair.first])
        teller.changed()
        await trio.sleep(0.4)
        assert not pair.first.closed.is_set()
        assert pair.first.streams == 0
        nursery.cancel_scope.cancel()


# -- ping ----------------------------------------------------------------------------------------------------------


async def test_ping_and_its_answer() -> None:
    async with connected(serving(ping=ping.answer).serve) as pair:
        assert 0 < await ping.ping(pair.first) < 1
        await trio.testing.wait_all_tasks_blocked()
        assert pair.first.streams == pair.second.streams == 0


async def test_a_ping_answered_with_other_bytes() -> None:
    async def liar(stream: Stream) -> None:
        await stream.receive_some()
        await stream.send_all(bytes(ping.SIZE))

    async with connected(serving(ping=liar).serve) as pair:
        with pytest.raises(ProtocolViolation, match="other bytes"):
            await ping.ping(pair.first)


async def test_a_ping_cut_short() -> None:
    async def cutter(stream: Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"half")
        await stream.send_eof()
        await trio.sleep_forever()

    async with connected(serving(ping=cutter).serve) as pair:
        with pytest.raises(ConnectionLost, match="cut short"):
            await ping.ping(pair.first)


async def test_a_ping_never_answered(autojump_clock: trio.testing.MockClock) -> None:
    async def silent(stream: Stream) -> None:
        await trio.sleep_forever()

    async with connected(serving(ping=silent).serve) as pair:
        with pytest.raises(TimedOut):
            await ping.ping(pair.first)


async def test_a_pinger_that_says_nothing_is_reset_after_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    async with connected(serving(ping=ping.answer).serve) as pair:
        stream = await pair.first.open_stream([ping.PROTOCOL])
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert trio.current_time() - began == pytest.approx(ping.IDLE_LIMIT)


# -- the book ------------------------------------------------------------------------------------------------------


def peer(number: int) -> PeerId:
    return PeerId.of_public_key(number.to_bytes(36, "big"))


def test_the_book_keeps_the_newest() -> None:
    book = Book(limit=2)
    for number in (1, 2, 1, 3):
        book.put(peer(number), Entry(agent=str(number)))
    assert book.peers() == [peer(1), peer(3)]
    assert book.get(peer(2)) is UNKNOWN


def test_as_what_peers_see_us() -> None:
    book = Book()
    book.put(peer(1), Entry(observed=HERE))
    book.put(peer(2), Entry(observed=HERE, observed_inbound=True))
    book.put(peer(3), Entry())
    assert book.observed() == [HERE]
    assert book.observed(inbound_only=True) == [HERE]


def test_who_watches_the_book_is_told_what_it_holds_and_what_comes() -> None:
    book = Book()
    seen: list[tuple[PeerId, str]] = []
    book.put(peer(1), Entry(agent="a"))
    book.watch(lambda who, entry: seen.append((who, entry.agent)))
    book.put(peer(2), Entry(agent="b"))
    assert seen == [(peer(1), "a"), (peer(2), "b")]
