"""`rbee_sd.keys`: a file of API keys gives none away, and only its owner may read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rbee_sd.errors import SettingsError
from rbee_sd.keys import Keys, add, fingerprint, keys_of, read, remove


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "keys"


def test_a_key_is_told_once_and_its_file_holds_no_key(path: Path) -> None:
    made = {name: add(path, name) for name in ("alice", "studio-2")}
    text = path.read_text()
    assert all(key not in text for key in made.values())
    assert all(len(key) > 40 for key in made.values())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    known = keys_of("", str(path))
    assert {name: known.name_of(key.encode()) for name, key in made.items()} == {
        "alice": "alice",
        "studio-2": "studio-2",
    }
    assert known.name_of(b"rbee_wrong") is None
    assert known.name_of(b"") is None
    assert [entry.name for entry in path.parent.iterdir()] == ["keys"]


def test_a_removed_key_opens_nothing_and_the_others_do(path: Path) -> None:
    gone, stays = add(path, "gone"), add(path, "stays")
    remove(path, "gone")
    known = keys_of("", str(path))
    assert (known.name_of(gone.encode()), known.name_of(stays.encode())) == (None, "stays")
    with pytest.raises(SettingsError, match="no key 'gone'"):
        remove(path, "gone")


def test_the_one_key_of_a_setting_has_no_name_and_stands_beside_those_of_the_file(path: Path) -> None:
    named = add(path, "alice")
    known = keys_of("secret", str(path))
    assert (known.name_of(b"secret"), known.name_of(named.encode())) == ("", "alice")
    assert not keys_of("", "")
    assert bool(known)


def test_a_file_whose_last_key_was_removed_does_not_open_the_worker_to_everybody(path: Path) -> None:
    add(path, "alice")
    remove(path, "alice")
    with pytest.raises(SettingsError, match="no key in"):
        keys_of("", str(path))
    with pytest.raises(SettingsError, match="no key in"):
        keys_of("secret", str(path))


def test_a_name_is_taken_once(path: Path) -> None:
    add(path, "alice")
    with pytest.raises(SettingsError, match="already"):
        add(path, "alice")


@pytest.mark.parametrize("name", ["", "192.0.2.1", "::1", "a b", "a\nb", "é", "1st", "x" * 65, "../x"])
def test_what_could_be_an_address_or_a_line_is_no_name(path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="no name"):
        add(path, name)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o644])
def test_a_file_that_others_may_read_is_refused_with_what_to_do(path: Path, mode: int) -> None:
    add(path, "alice")
    os.chmod(path, mode)
    with pytest.raises(SettingsError, match="chmod 600"):
        keys_of("", str(path))


@pytest.mark.parametrize(
    "line", ["alice", "alice secret", f"alice {'0' * 63}", f"alice {'g' * 64}", f"alice {'0' * 64} more", "\x00"]
)
def test_a_line_that_is_none_is_named_and_not_shown(path: Path, line: str) -> None:
    path.write_text(f"# ours\n\nbob {fingerprint('b')}\n{line}\n")
    os.chmod(path, 0o600)
    with pytest.raises(SettingsError, match="line 4") as caught:
        read(path)
    assert "secret" not in str(caught.value)


def test_a_name_that_stands_twice_is_refused(path: Path) -> None:
    path.write_text(f"bob {fingerprint('a')}\nbob {fingerprint('b')}\n")
    os.chmod(path, 0o600)
    with pytest.raises(SettingsError, match="second time"):
        read(path)


def test_a_file_that_cannot_be_read_is_refused(path: Path) -> None:
    for broken in (path, path.parent):
        with pytest.raises(SettingsError, match="cannot read"):
            keys_of("", str(broken))
    path.write_bytes(b"\xff\xfe")
    os.chmod(path, 0o600)
    with pytest.raises(SettingsError, match="cannot read"):
        read(path)


def test_every_hash_is_compared_also_behind_one_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(first: bytes, second: bytes) -> bool:
        compared.append(second)
        return first == second

    monkeypatch.setattr("rbee_sd.keys.hmac.compare_digest", compare)
    known = Keys({name: fingerprint(name) for name in ("first", "second", "third")})
    assert known.name_of(b"first") == "first"
    assert len(compared) == 3
