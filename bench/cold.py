"""What happens seldom, but while somebody waits: decisions, files, codes and names; microseconds by themselves."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from pathlib import Path

from bench.figures import Book
from bench.progress import say
from peerupd.config.store import ConfigFile
from peerupd.control.names import Names
from peerupd.model.addresses import RelayAddress
from peerupd.trust.authorized_keys import Allowlist, AllowlistFile
from peerupd.trust.gate import Gate
from peerupd.trust.identity import Identity
from peerupd.wire import invite

ROUNDS = 7
ROUND_SECONDS = 0.02
NOW = 1.8e9  # seconds since the epoch


def measure(book: Book, folder: Path) -> None:
    """All of them."""
    for name, deed in deeds(folder).items():
        say(f"cold: {name}")
        once = max(timeit.timeit(deed, number=1), 1e-7)
        often = max(1, int(ROUND_SECONDS / once))
        for _ in range(ROUNDS):
            book.note("cold", name, median=timeit.timeit(deed, number=often) / often * 1e6)


def deeds(folder: Path) -> dict[str, Callable[[], object]]:
    """Each by its name."""
    peers = [Identity.generate().peer_id for _ in range(50)]
    made: dict[str, Callable[[], object]] = {}
    for count in (5, 50):
        allowlist = Allowlist.parse("".join(f"{peer}  # machine {n}\n" for n, peer in enumerate(peers[:count])))
        path = folder / f"authorized_keys-{count}"
        path.write_text(allowlist.text)
        path.chmod(0o600)
        made[f"allowlist of {count}, load"] = AllowlistFile(path).load
    gate = Gate(enabled=True, allowlist=allowlist, role="node")
    made["gate decision, admitted"] = lambda: gate.decide(peers[-1], circuit=False, now=NOW)
    stranger = Identity.generate().peer_id
    made["gate decision, refused"] = lambda: gate.decide(stranger, circuit=True, now=NOW)
    made["config, load"] = ConfigFile(_config(folder)).load_node
    code = invite.Invite(
        token=invite.new_token(),
        relay=RelayAddress.parse(f"/ip4/203.0.113.50/tcp/7777/p2p/{peers[0]}"),
        inviter=peers[1],
    )
    text = invite.encode(code)
    made["invite code, encode"] = lambda: invite.encode(code)
    made["invite code, decode"] = lambda: invite.decode(text)
    names = Names({f"machine{number}": peer for number, peer in enumerate(peers)})
    made["name, resolve"] = lambda: names.resolve("machine49")
    written = str(peers[7])
    made["peer ID, resolve"] = lambda: names.resolve(written)
    return made


def _config(folder: Path) -> Path:
    """The sample that is shipped."""
    sample = Path(__file__).resolve().parent.parent / "etc/peerup/config.yaml"
    made = folder / "config.yaml"
    made.write_text(sample.read_text())
    made.chmod(0o600)
    return made
