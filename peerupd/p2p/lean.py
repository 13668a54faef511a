"""Import the parts of py-libp2p that we use, without the parts that we do not.

`import libp2p` runs the package's front door, which imports everything: 1,237 modules, 81.5 MiB of memory. Here a
bare package, with the right search path and nothing in it, takes the place of each package whose front door pulls the
world; then submodules can be imported by name. What stays outside, and why:

    libp2p                  the front door: new_host and with it every transport, muxer, discovery
    libp2p.transport        TCP, WebSocket, QUIC, manager: the transport is ours (p2p.tcp)
    libp2p.transport.quic   aioquic, 12 MiB. Only the name `QUICStream` is wanted, as a type in annotations
    libp2p.utils            address validation, paths, logging; `utils.varint` alone is wanted
    libp2p.pubsub           gossip, floodsub; the protobuf `pubsub.pb.rpc_pb2` alone is wanted, in annotations

Nothing is loaded before `prepare` is called, which `p2p.records` does when somebody asks for the peerstore. Measured
on Debian 12 (RSS, Python 3.11): two hosts of ours, connected, 37.9 MiB and 310 modules; with the peerstore 51.5 MiB and
558 modules; with `import libp2p` instead 89.6 MiB and 1,381 modules. Where the real package was imported before, it is
used as it is.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Final

from peerupd.model.errors import EnvironmentalError

ROOT: Final = "libp2p"
BARE: Final = ("libp2p.transport", "libp2p.transport.quic", "libp2p.utils", "libp2p.pubsub")
"""Packages that stand bare below `ROOT`."""
_TYPES: Final = {"libp2p.transport.quic.stream": ("QUICStream",)}
"""Modules of which only the names of some classes are wanted."""


def prepare() -> None:
    """Let submodules of libp2p be imported by name, unless they can be already.

    Raises `EnvironmentalError` when py-libp2p is not installed.
    """
    if ROOT in sys.modules:
        return
    spec = find_spec(ROOT)
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentalError("the package libp2p is not installed", hint="make setup")
    folder = Path(spec.submodule_search_locations[0])
    for name in (ROOT, *BARE):
        _put(_package(name, folder.joinpath(*name.split(".")[1:])))
    for name, classes in _TYPES.items():
        _put(_module_of_types(name, classes))


def _package(name: str, folder: Path) -> ModuleType:
    package = ModuleType(name, "A bare package: see peerupd.p2p.lean.")
    package.__path__ = [str(folder)]
    return package


def _module_of_types(name: str, classes: tuple[str, ...]) -> ModuleType:
    module = ModuleType(name, "Names for annotations only: see peerupd.p2p.lean.")
    for one in classes:
        setattr(module, one, type(one, (), {"__module__": name}))
    return module


def _put(module: ModuleType) -> None:
    """Make it importable, and an attribute of its parent as the import system would."""
    sys.modules[module.__name__] = module
    parent, _, child = module.__name__.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
