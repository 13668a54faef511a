import pytest

from peerupd.model import errors
from peerupd.model.errors import (
    ConfigInvalid,
    EnvironmentalError,
    PeerupError,
    RefusedError,
    RemoteError,
    RequestError,
)

FAMILIES = (RequestError, RefusedError, RemoteError, EnvironmentalError)
ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PeerupError)]


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not PeerupError])
def test_every_error_says_whose_fault_it_is_and_what_it_means(kind):
    assert sum(issubclass(kind, family) for family in FAMILIES) == 1
    assert "code" in vars(kind)
    assert kind.__doc__


def test_codes_are_unique_and_families_have_their_own_exit_status():
    assert len({kind.code for kind in ALL}) == len(ALL)
    assert len({family.exit_status for family in FAMILIES}) == len(FAMILIES)


def test_the_text_of_an_error_ends_with_what_to_do_next():
    assert str(RequestError("no")) == "no"
    assert str(RequestError("no", hint="do")) == "no; do"


def test_an_invalid_configuration_tells_all_its_problems():
    error = ConfigInvalid("a.yaml cannot be used", problems=("line 1: x", "line 2: y"))

    assert str(error) == "a.yaml cannot be used\n  line 1: x\n  line 2: y"
    assert error.problems == ("line 1: x", "line 2: y")
