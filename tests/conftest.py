"""What all tests share: hypothesis profiles, the lab's rule, a folder for Unix sockets."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.support.figures import Tell

settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci", max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


# A shell ignores SIGINT for what it runs in the background, and so would every program that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The lab needs root; where it is required, its absence is a failure and not a skip."""
    if item.get_closest_marker("lab") and os.geteuid() != 0:
        if os.environ.get("PEERUP_LAB") == "required":
            pytest.fail("the lab is required here, and it needs root")
        pytest.skip("lab: needs root (network namespaces)")


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """A line of a table, shown although tests are captured."""

    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="", flush=True)

    return show
