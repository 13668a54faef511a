import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd.model.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("2m", 120),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1),
        ("250ms", 0.25),
        ("1m0.5s", 60.5),
        ("3us", 3e-6),
        ("3µs", 3e-6),
        ("7ns", 7e-9),
    ],
)
def test_durations_are_read_as_go_reads_them(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "1d", "-1s", "1h 30m", "1,5s", "٣s", "1s1", "1" * 100_000])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="a duration like"):
        parse_duration(text)


def test_a_duration_has_an_end():
    with pytest.raises(ValueError, match="ten years"):
        parse_duration("87601h")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "0s"),
        (0.25, "250ms"),
        (1.5, "1.5s"),
        (59.9999, "1m0s"),
        (120, "2m0s"),
        (3599.99999, "1h0m0s"),
        (3600, "1h0m0s"),
        (5400.25, "1h30m0.25s"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds, text):
    assert format_duration(seconds) == text


@given(st.floats(0, 10 * 365 * 24 * 3600 - 1))
def test_what_is_written_can_be_read(seconds):
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.0006)
