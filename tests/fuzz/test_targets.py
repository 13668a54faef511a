"""Every target in a short form: its own corpus, and what hypothesis makes of it; the long form is `make fuzz`."""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import bounds
from tests.fuzz.bounds import Finding, Ran
from tests.fuzz.mutation import mutated
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

EXAMPLES = 60 if os.environ.get("CI") else 30
SLOW = 0.1  # of a share: so slow a target gets fewer examples

each = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


def ran(target: Target, data: bytes, *, memory: bool = False) -> Ran:
    """Run it; a finding is a failure."""
    outcome = bounds.run(target, data, memory=memory)
    assert not isinstance(outcome, Finding), f"{outcome.kind}\n{outcome.told}\ninput: {data!r}"
    return outcome


@pytest.fixture(autouse=True)
def _endless_is_broken_off() -> None:
    bounds.break_off_the_endless()


@each
def test_what_a_target_begins_with_is_worth_it(target: Target):
    outcomes = [ran(target, data, memory=True) for data in target.seeds()]
    assert any(outcome.error is None for outcome in outcomes) or target.name in NEVER_ACCEPTED
    assert all(len(data) <= target.max_input for data in target.seeds())


@each
def test_only_declared_errors_come_out(target: Target):
    seeds = list(target.seeds())
    corpus = st.sampled_from(seeds)
    changed = st.builds(mutated, st.builds(Random, st.integers(0, 2**32)), st.just(target), corpus, corpus)
    few = max(2, int(EXAMPLES * min(1.0, target.share / SLOW)))

    @settings(max_examples=few, suppress_health_check=list(HealthCheck))
    @given(st.one_of(changed, changed, st.binary(max_size=min(target.max_input, 200))))
    def holds(data: bytes) -> None:
        ran(target, data)

    holds()


NEVER_ACCEPTED = {"wire.noise.static"}
"""Nobody is met who has proved nothing."""
