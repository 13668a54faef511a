"""As many descriptors as the process may have."""

import resource

import pytest

from peerupd.linux.descriptors import raise_limit


@pytest.fixture
def lowered():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_soft_limit_becomes_the_hard_one(lowered):
    assert raise_limit() == lowered
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (lowered, lowered)


def test_a_kernel_that_refuses_leaves_it_as_it_is(lowered, monkeypatch):
    def refuse(which, limits):
        raise ValueError("not allowed to raise maximum limit")

    with monkeypatch.context() as patched:
        patched.setattr(resource, "setrlimit", refuse)
        assert raise_limit() == 256
