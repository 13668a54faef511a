"""Who is meant: a peer ID as it is, else a name of the configuration's `names:`.

A text that is a peer ID is never looked up: otherwise a peer could choose another one's ID as its name.
"""

from __future__ import annotations

from collections.abc import Mapping

from peerupd.model.errors import InvalidPeerId, RequestError, UnknownPeer
from peerupd.model.names import PeerId, printable
from peerupd.model.snapshots import Resolved


class Names:
    """The names in force; `replace` puts others in their place."""

    def __init__(self, names: Mapping[str, PeerId]) -> None:
        self._names = dict(names)

    def replace(self, names: Mapping[str, PeerId]) -> None:
        """Put these names in force."""
        self._names = dict(names)

    def resolve(self, text: str) -> PeerId:
        """The peer meant by `text`; raises `UnknownPeer`, or `RequestError` for no text at all."""
        return self._look_up(text)[0]

    def explain(self, text: str) -> Resolved:
        """The peer meant by `text`, and how we know; raises as `resolve`."""
        peer, source = self._look_up(text)
        return Resolved(name=text, peer_id=str(peer), source=source)

    def name_of(self, peer: PeerId) -> str | None:
        """The first name of a peer."""
        return next((name for name, known in self._names.items() if known == peer), None)

    def _look_up(self, text: str) -> tuple[PeerId, str]:
        if not text:
            raise RequestError("peer is required", hint="give a name from `names:` or a peer ID")
        try:
            return PeerId.parse(text), "peer_id"
        except InvalidPeerId:
            found = self._names.get(text)
        if found is None:
            raise UnknownPeer(
                f'cannot resolve "{printable(text, 80)}": name not found: {printable(text, 80)}', hint=self._known()
            )
        return found, "local_config"

    def _known(self) -> str:
        if not self._names:
            return "no names are configured; use the peer ID, or pair with `peerupctl invite` and `peerupctl join`"
        return "known names: " + ", ".join(sorted(self._names)[:20])
