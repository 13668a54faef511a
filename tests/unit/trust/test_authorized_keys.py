import base64
import stat
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerupd import files
from peerupd.model.errors import (
    AlreadyExists,
    InsecurePermissions,
    LimitReached,
    NotFound,
    RequestError,
    StorageFailed,
    UnknownPeer,
)
from peerupd.model.names import PeerId
from peerupd.trust import authorized_keys
from peerupd.trust.authorized_keys import EXPIRED, MAX_FILE, MAX_PROBLEMS, Allowlist, AllowlistFile, parse_moment
from tests.support.strategies import allowlist_lines, peer_ids, rfc3339_moments

HOME = PeerId.parse("12D3KooWLdJAwPtyQ5RFnr9wGXsQzpf3P2SeqFbYkqbfVehLu4Ns")
LAPTOP = PeerId.parse("12D3KooWBRFW3HkJCLKSWb4yG6iWRBpgNjbM4FFvNsL5T5JKTqrd")
NAS = PeerId.parse("12D3KooWPqT2nMDSiXUSx5D7fasaxhxKigVhcqfkKqrLghCq9jxz")
IN_2026 = datetime(2026, 12, 31, tzinfo=UTC).timestamp()

OF_PEER_UP = f"""\
# authorized_keys - Peer ID allowlist (one per line)
# Format: <peer_id> # optional comment

{HOME}  expires=2026-12-31T00:00:00Z  verified=sha256:1a3f881b  group=deadbeef  # home server
{LAPTOP} # laptop
\t{NAS}  colour=red
"""


def peers(allowlist):
    return [entry.peer for entry in allowlist.entries]


# -- reading -------------------------------------------------------------------------------------------------------


def test_a_file_of_peer_up_loads_unchanged():
    allowlist = Allowlist.parse(OF_PEER_UP)

    home, laptop, nas = allowlist.entries
    assert allowlist.problems == ()
    assert allowlist.text == OF_PEER_UP
    assert (home.peer, home.comment, home.line, home.expires_at) == (HOME, "home server", 4, IN_2026)
    assert home.attributes == {
        "expires": "2026-12-31T00:00:00Z",
        "verified": "sha256:1a3f881b",
        "group": "deadbeef",
    }
    assert (laptop.peer, laptop.comment, laptop.attributes) == (LAPTOP, "laptop", {})
    assert (nas.peer, nas.attributes, nas.expires_at) == (NAS, {"colour": "red"}, None)


def test_an_entry_ends_at_its_moment_and_not_before():
    home, laptop, _ = Allowlist.parse(OF_PEER_UP).entries

    assert not home.expired(IN_2026 - 0.1)
    assert home.expired(IN_2026)
    assert not laptop.expired(9e12)


def test_a_peer_is_found_by_its_id():
    allowlist = Allowlist.parse(OF_PEER_UP)

    assert allowlist.get(LAPTOP) is allowlist.entries[1]
    assert Allowlist().get(LAPTOP) is None
    assert allowlist.expires_at(allowlist.entries[0]) == IN_2026


def test_one_bad_line_is_reported_with_its_number_and_disables_nothing_else():
    allowlist = Allowlist.parse(f"{HOME}\nnobody\x1b # x\n{LAPTOP}\n")

    assert peers(allowlist) == [HOME, LAPTOP]
    assert len(allowlist.problems) == 1
    assert allowlist.problems[0].startswith("line 2: not a peer ID: ")
    assert allowlist.problems[0].isprintable()


def test_lines_of_another_system_are_lines():
    allowlist = Allowlist.parse(f"{HOME} # a\r\n{LAPTOP}  group=x\r\n")

    assert peers(allowlist) == [HOME, LAPTOP]
    assert allowlist.entries[0].comment == "a"
    assert allowlist.entries[1].attributes == {"group": "x"}
    assert allowlist.problems == ()


@pytest.mark.parametrize("separator", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_only_a_line_feed_ends_a_line(separator):
    allowlist = Allowlist.parse(f"{HOME}  # a comment{separator}{LAPTOP}\n")

    assert peers(allowlist) == [HOME]


@pytest.mark.parametrize(
    "moment",
    [
        "soon",
        "",
        "2026-12-31",
        "2026-12-31T00:00:00",
        "2026-13-01T00:00:00Z",
        "2026-12-31T24:61:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-12:00",
        "\x1b",
    ],
)
def test_an_expiry_that_cannot_be_read_has_passed_and_is_reported(moment):
    allowlist = Allowlist.parse(f"{HOME}  expires={moment}\n")

    assert allowlist.entries[0].expires_at == EXPIRED
    assert allowlist.entries[0].expired(0.0)
    assert "taken as expired" in allowlist.problems[0]


@pytest.mark.parametrize("word", ["expires", "EXPIRES=2020-01-01T00:00:00Z", "Expires=never"])
def test_a_slip_in_the_word_expires_does_not_make_a_line_eternal(word):
    assert Allowlist.parse(f"{HOME} {word}\n").entries[0].expired(IN_2026)


def test_zones_and_fractions_are_understood():
    assert parse_moment("2026-12-31T01:00:00.5+01:00") == IN_2026 + 0.5


def test_a_word_that_is_no_attribute_is_reported_and_ignored():
    allowlist = Allowlist.parse(f"{HOME} laptop group=x\n")

    assert allowlist.problems == ("line 1: 'laptop' is not key=value, ignoring",)
    assert allowlist.entries[0].attributes == {"group": "x"}


def test_a_line_that_contradicts_itself_admits_nobody():
    allowlist = Allowlist.parse(f"{HOME} expires=2020-01-01T00:00:00Z expires=2099-01-01T00:00:00Z\n")

    assert allowlist.entries == ()
    assert allowlist.problems == ("line 1: expires is there twice, ignoring the line",)


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_lines_for_one_peer_the_one_that_expires_first_counts(order):
    lines = [f"{HOME}  expires=2099-01-01T00:00:00Z", f"{HOME}", f"{HOME}  expires=2020-01-01T00:00:00Z"][::order]

    allowlist = Allowlist.parse("\n".join(lines))

    found = allowlist.get(HOME)
    assert found is not None
    assert found.attributes["expires"].startswith("2020")
    assert len(allowlist.entries) == 3
    assert [problem.partition(":")[0] for problem in allowlist.problems] == ["line 2", "line 3"]


def test_entries_have_a_bound(monkeypatch):
    monkeypatch.setattr(authorized_keys, "MAX_ENTRIES", 2)
    allowlist = Allowlist.parse(f"{HOME}\n{LAPTOP}\n\n{NAS}\n{NAS}\n")

    assert peers(allowlist) == [HOME, LAPTOP]
    assert allowlist.problems == ("line 4: more than 2 entries, ignoring this and what follows",)
    with pytest.raises(LimitReached, match="has 2 entries"):
        Allowlist.parse(f"{HOME}\n{LAPTOP}\n").add(NAS)


def test_problems_have_a_bound_and_the_rest_is_counted():
    problems = Allowlist.parse("junk\n" * (MAX_PROBLEMS + 7)).problems

    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1] == "and 7 more lines with problems"


@given(st.lists(allowlist_lines()), st.sampled_from(("", "\n")))
def test_any_text_is_an_allowlist_in_which_each_line_speaks_for_itself(lines, end):
    allowlist = Allowlist.parse("\n".join(lines) + end)

    assert allowlist.text == "\n".join(lines) + end
    assert peers(allowlist) == [peer for line in lines for peer in peers(Allowlist.parse(line))]
    assert all(problem.isprintable() for problem in allowlist.problems)
    assert all(entry.comment.isprintable() for entry in allowlist.entries)


# -- changing ------------------------------------------------------------------------------------------------------


def test_a_peer_is_added_at_the_end_as_peer_up_writes_it():
    allowlist = Allowlist.parse("# mine\n").add(LAPTOP, "laptop").add(HOME)

    assert allowlist.text == f"# mine\n{LAPTOP}  # laptop\n{HOME}\n"
    assert peers(allowlist) == [LAPTOP, HOME]


def test_a_file_without_its_final_newline_is_not_glued():
    assert Allowlist.parse(f"{HOME} # x").add(LAPTOP).text == f"{HOME} # x\n{LAPTOP}\n"
    assert Allowlist.parse("").add(LAPTOP).text == f"{LAPTOP}\n"


def test_attributes_are_written_in_one_order():
    allowlist = Allowlist().add(
        HOME, "c", vouched_by=str(NAS), verified="sha256:1a3f881b", keep="yes", expires="2026-12-31T00:00:00Z"
    )

    assert allowlist.text == (
        f"{HOME}  expires=2026-12-31T00:00:00Z  verified=sha256:1a3f881b  vouched_by={NAS}  keep=yes  # c\n"
    )


def test_a_comment_stays_a_comment():
    allowlist = Allowlist().add(HOME, f"a\r\n{LAPTOP}\0\x1b[31m\u202e # b" + "x" * 300)

    assert peers(allowlist) == [HOME]
    assert allowlist.text.count("\n") == 1
    assert allowlist.entries[0].comment.startswith(f"a{LAPTOP}[31m # b")
    assert len(allowlist.entries[0].comment) == 200


def test_a_peer_is_added_once():
    allowlist = Allowlist.parse(f"\n{HOME}\n")

    with pytest.raises(AlreadyExists, match=r"peer already authorized: 12D3KooWLdJAwPty\.\.\.; see line 2"):
        allowlist.add(HOME)


@pytest.mark.parametrize(
    "attributes",
    [
        {"group": "a b"},
        {"group": "a#b"},
        {"group": "a\nb"},
        {"group": ""},
        {"group": "\x1b"},
        {"group": "x" * 600},
        {"": "x"},
        {"a=b": "x"},
        {"a b": "x"},
        {"expires": "soon"},
        {"expires": "2026-12-31"},
    ],
)
def test_an_attribute_that_could_not_be_read_again_is_not_written(attributes):
    with pytest.raises(RequestError):
        Allowlist().add(HOME, **attributes)
    with pytest.raises(RequestError):
        Allowlist().add(HOME).set_attributes(HOME, **attributes)


def test_a_removed_peer_leaves_the_rest_as_it_stood():
    allowlist = Allowlist.parse(OF_PEER_UP).remove(LAPTOP)

    assert allowlist.text == OF_PEER_UP.replace(f"{LAPTOP} # laptop\n", "")
    assert peers(allowlist) == [HOME, NAS]


def test_removing_a_peer_removes_every_line_that_begins_with_it():
    cid = "b" + base64.b32encode(b"\x01\x72" + HOME.multihash).decode().lower().rstrip("=")
    text = f"{HOME}\n# {HOME}\n  {HOME} group=x group=y\n{LAPTOP} # {HOME}\n{HOME}#\n{cid}\n"

    assert Allowlist.parse(text).remove(HOME).text == f"# {HOME}\n{LAPTOP} # {HOME}\n"


def test_a_peer_that_is_not_there_cannot_be_removed_or_changed():
    for change in (Allowlist().remove, Allowlist().set_attributes):
        with pytest.raises(UnknownPeer, match=r"peer not found: 12D3KooWLdJAwPty\.\.\."):
            change(HOME)


def test_attributes_are_set_and_taken_off_and_the_rest_of_the_line_stays():
    allowlist = Allowlist.parse(OF_PEER_UP).set_attributes(HOME, expires=None, verified="sha256:00000000", keep="yes")

    changed = f"{HOME}  verified=sha256:00000000  group=deadbeef  keep=yes  # home server"
    assert allowlist.text == "\n".join(
        changed if line.startswith(str(HOME)) else line for line in OF_PEER_UP.split("\n")
    )


def test_attributes_are_set_on_every_line_of_the_peer():
    allowlist = Allowlist.parse(f"{HOME} expires=2020-01-01T00:00:00Z\n{HOME}\n")

    later = allowlist.set_attributes(HOME, expires="2099-01-01T00:00:00Z").get(HOME)

    assert later is not None
    assert not later.expired(IN_2026)


def test_the_file_cannot_grow_beyond_what_can_be_read():
    almost = Allowlist.parse("#" * (MAX_FILE - 60) + f"\n{HOME}")

    with pytest.raises(LimitReached, match="would have more than"):
        almost.add(LAPTOP)
    with pytest.raises(LimitReached, match="would have more than"):
        almost.set_attributes(HOME, group="x" * 40)


@given(st.lists(allowlist_lines()), peer_ids(), st.text(max_size=30), rfc3339_moments())
def test_adding_and_removing_leaves_everything_else_as_it_was(lines, peer, comment, expires):
    before = Allowlist.parse("\n".join(lines))
    if before.get(peer) is not None:
        before = before.remove(peer)

    added = before.add(peer, comment, expires=expires)

    assert peers(added) == [*peers(before), peer]
    assert added.entries[-1].expires_at == parse_moment(expires)
    assert added.problems == before.problems
    assert added.text.startswith(before.text)
    removed = added.remove(peer)
    assert removed.get(peer) is None
    assert peers(removed) == peers(before)


@given(st.lists(allowlist_lines()), st.data())
def test_a_removed_peer_is_gone_whatever_the_file_looks_like(lines, data):
    allowlist = Allowlist.parse("\n".join(lines))
    if not allowlist.entries:
        return
    peer = data.draw(st.sampled_from(allowlist.entries)).peer

    removed = allowlist.remove(peer)

    assert removed.get(peer) is None
    assert peers(removed) == [other for other in peers(allowlist) if other != peer]


@given(st.lists(allowlist_lines()), st.data())
def test_setting_an_attribute_touches_the_lines_of_that_peer_only(lines, data):
    allowlist = Allowlist.parse("\n".join(lines))
    if not allowlist.entries:
        return
    chosen = data.draw(st.sampled_from(allowlist.entries))

    changed = allowlist.set_attributes(chosen.peer, group="new")

    assert [e for e in changed.entries if e.peer != chosen.peer] == [
        e for e in allowlist.entries if e.peer != chosen.peer
    ]
    ours = [(e.comment, {**e.attributes, "group": "new"}) for e in allowlist.entries if e.peer == chosen.peer]
    assert [(e.comment, dict(e.attributes)) for e in changed.entries if e.peer == chosen.peer] == ours


# -- the file ------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "authorized_keys"
    path.write_text(OF_PEER_UP)
    path.chmod(0o640)
    return AllowlistFile(path)


def test_what_is_saved_is_loaded(file):
    file.save(file.load().remove(LAPTOP))

    assert peers(file.load()) == [HOME, NAS]
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o640


def test_a_new_file_is_for_its_owner_alone(tmp_path):
    file = AllowlistFile(tmp_path / "new")

    file.save(Allowlist().add(HOME))

    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert peers(file.load()) == [HOME]


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o602])
def test_an_allowlist_that_others_may_read_or_write_is_refused(file, mode):
    file.path.chmod(mode)

    with pytest.raises(InsecurePermissions, match=r"fix with: chmod 6[04]0"):
        file.load()


def test_a_missing_allowlist_is_missing_and_an_empty_one_is_obeyed(file, tmp_path):
    with pytest.raises(NotFound):
        AllowlistFile(tmp_path / "none").load()

    file.path.write_text("")
    assert file.load() == Allowlist()


def test_a_file_without_bound_is_not_read(file):
    file.path.write_text("#" * (MAX_FILE + 1))

    with pytest.raises(RequestError, match="too large"):
        file.load()


def test_an_allowlist_that_cannot_be_saved_is_as_it_was(file, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "x")))

    with pytest.raises(StorageFailed, match="nothing was changed"):
        file.save(Allowlist())

    assert file.path.read_text() == OF_PEER_UP


def test_one_byte_that_is_not_utf8_locks_nobody_out_and_is_kept(file):
    file.path.write_bytes(f"{HOME} # M".encode() + b"\xfcller\n" + f"{LAPTOP}\n".encode())

    file.save(file.load().remove(LAPTOP))

    assert peers(file.load()) == [HOME]
    assert file.path.read_bytes() == f"{HOME} # M".encode() + b"\xfcller\n"


# -- the last good copy --------------------------------------------------------------------------------------------


def test_at_most_leaves_out_who_is_new_and_who_gets_longer():
    soon, late = "expires=2026-01-01T00:00:00Z", "expires=2027-01-01T00:00:00Z"
    before = Allowlist.parse(f"{HOME}\n{LAPTOP} {soon}\n")
    after = Allowlist.parse(f"# all\n{HOME} {late} # home\n{LAPTOP}\n{NAS}\n{NAS} a=1 a=2\nrubbish\n")
    assert after.at_most(before).text == f"# all\n{HOME} {late} # home\nrubbish\n"


@given(st.lists(allowlist_lines()), st.lists(allowlist_lines()))
def test_at_most_never_gives_more_than_either(before, after):
    before, after = Allowlist.parse("\n".join(before)), Allowlist.parse("\n".join(after))
    narrowed = after.at_most(before)
    for entry in narrowed.entries:
        for other in (before.get(entry.peer), after.get(entry.peer)):
            assert other is not None
            assert (other.expires_at or 1e99) >= (narrowed.get(entry.peer).expires_at or 1e99)
    assert set(peers(narrowed)) == set(peers(after.at_most(before).at_most(after)))


def test_the_last_good_copy_is_kept_beside_the_file_and_can_be_dropped(file):
    allowlist = Allowlist.parse(OF_PEER_UP + "\udcff")
    file.keep(allowlist)
    copy = files.copy_of(file.path)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert AllowlistFile(copy).load() == allowlist
    file.drop_copy()
    assert not copy.exists()
