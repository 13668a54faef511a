"""One scene of running programs for all modules that attack them; at the end both stop as they are asked to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attack.scene import Scene, Target


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Scene.running(tmp_path_factory.mktemp("attack")) as scene:
        yield scene


@pytest.fixture(params=["node", "relay"])
def target(scene: Scene, request: pytest.FixtureRequest) -> Target:
    chosen: Target = getattr(scene, request.param)
    return chosen
