"""`settings`: where a value comes from, what is refused, and that what is refused says which and why."""

from __future__ import annotations

import dataclasses
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest

from rbee_sd.errors import SettingsError, StartError
from rbee_sd.settings import HINTS, Settings, environment_name, flag_name, load, state_dir_of, worker_url

BOUNDED = [item for item in fields(Settings) if item.metadata["minimum"] is not None]
WORDS = [item for item in fields(Settings) if item.metadata["choices"]]


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A settings file to write to."""
    return tmp_path / "rbee-sd.toml"


def refusal(
    conf: Path | str | None = None, environ: dict[str, str] | None = None, flags: dict[str, Any] | None = None
) -> str:
    """The message with which these settings are refused."""
    with pytest.raises(SettingsError) as caught:
        load(flags, environ, conf)
    message = str(caught.value)
    assert "\n" not in message
    return message


def named(items: list[Field[Any]]) -> pytest.MarkDecorator:
    """Parameters for tests, named after the settings."""
    return pytest.mark.parametrize("item", items, ids=lambda item: str(item.name))


def test_without_anything_there_are_the_defaults() -> None:
    assert load() == Settings()
    assert load({}, {"PATH": "/bin", "RBEE": "1"}) == Settings()
    settings = load()
    assert (settings.port, settings.queue_size, settings.job_ttl, settings.job_timeout) == (8600, 64, 2_592_000, 300)
    assert (settings.host, settings.disconnect_grace) == ("127.0.0.1", 5)
    assert settings.heartbeat <= 10


def test_flag_goes_before_environment_before_file_before_default(conf: Path) -> None:
    conf.write_text("port = 1\nqueue_size = 11\nmax_count = 3\n")
    environ = {"RBEE_SD_PORT": "2", "RBEE_SD_QUEUE_SIZE": "22"}
    settings = load({"port": "3", "queue_size": None}, environ, conf)
    assert (settings.port, settings.queue_size, settings.max_count, settings.max_steps) == (3, 22, 3, 150)


def test_a_flag_goes_before_the_environment_for_the_settings_file_too(conf: Path, tmp_path: Path) -> None:
    conf.write_text("port = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("port = 2\n")
    assert load({}, {"RBEE_SD_CONF": str(other)}).port == 2
    assert load({}, {"RBEE_SD_CONF": str(other)}, conf).port == 1


def test_a_false_flag_overrides_a_true_file(conf: Path) -> None:
    conf.write_text("no_auth = true\n")
    assert load({}, {}, conf).no_auth is True
    assert load({"no_auth": False}, {}, conf).no_auth is False
    assert load({"no_auth": None}, {}, conf).no_auth is True


@named(list(fields(Settings)))
def test_every_setting_can_be_given_in_each_of_the_three_ways(item: Field[Any], conf: Path) -> None:
    values: dict[Any, tuple[str, str, Any]] = {
        bool: ("true", "true", True),
        str: ("text", '"text"', "text"),
        int: (str(item.default), str(item.default), item.default),
        float: ("7.5", "7.5", 7.5),
        tuple[str, ...]: ("a.example, b.example", '["a.example", "b.example"]', ("a.example", "b.example")),
    }
    text, toml, value = values[HINTS[item.name]]
    if item.metadata["choices"]:
        value = text = item.metadata["choices"][-1]
        toml = f'"{text}"'
    conf.write_text(f"{item.name} = {toml}\n")
    for settings in (load({item.name: text}), load({}, {environment_name(item.name): text}), load({}, {}, conf)):
        assert getattr(settings, item.name) == value
        assert type(getattr(settings, item.name)) is type(value)


@named(list(fields(Settings)))
def test_every_setting_has_help_and_a_default_within_its_own_bounds(item: Field[Any]) -> None:
    assert item.metadata["help"]
    if HINTS[item.name] in (int, float):
        assert item.metadata["minimum"] <= item.default <= item.metadata["maximum"]
    if item.metadata["choices"]:
        assert item.default in item.metadata["choices"]
    default = item.default
    assert type(default) is (tuple if HINTS[item.name] == tuple[str, ...] else HINTS[item.name])


def test_names_follow_one_rule() -> None:
    assert environment_name("disconnect_grace") == "RBEE_SD_DISCONNECT_GRACE"
    assert flag_name("disconnect_grace") == "--disconnect-grace"


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_a_settings_error_ends_the_start() -> None:
    assert issubclass(SettingsError, StartError)


@named(BOUNDED)
def test_both_bounds_are_allowed_and_what_lies_beyond_is_refused(item: Field[Any], conf: Path) -> None:
    lowest, highest = item.metadata["minimum"], item.metadata["maximum"]
    for edge in (lowest, highest):
        assert getattr(load({item.name: str(edge)}), item.name) == edge
    beyond = 1 if HINTS[item.name] is int else 0.001
    for value in (lowest - beyond, highest + beyond, -(10**15), 10**15):
        for message in (
            refusal(flags={item.name: str(value)}),
            refusal(environ={environment_name(item.name): str(value)}),
            refusal(conf=_written(conf, f"{item.name} = {value}")),
        ):
            assert item.name in message


@named([item for item in BOUNDED if HINTS[item.name] is float])
def test_no_number_is_refused(item: Field[Any], conf: Path) -> None:
    for text in ("nan", "inf", "-inf", "NaN", "1e400"):
        assert item.name in refusal(flags={item.name: text})
    for text in ("nan", "+nan", "inf", "-inf", "1e400"):
        assert item.name in refusal(conf=_written(conf, f"{item.name} = {text}"))


@named([item for item in BOUNDED if HINTS[item.name] is int])
def test_a_fraction_or_a_word_is_no_whole_number(item: Field[Any], conf: Path) -> None:
    for text in ("1.0", "1e2", "nan", "many", "", "0x10", "9" * 5000):
        assert item.name in refusal(flags={item.name: text})
    for toml in ("1.0", "true", '"64"', "[64]", "nan"):
        assert item.name in refusal(conf=_written(conf, f"{item.name} = {toml}"))


@named([item for item in BOUNDED if HINTS[item.name] is float])
def test_a_number_may_be_whole_in_the_file_and_is_nothing_else(item: Field[Any], conf: Path) -> None:
    value = getattr(load(conf=_written(conf, f"{item.name} = 7")), item.name)
    assert (value, type(value)) == (7.0, float)
    for toml in ("true", '"7"', "[7]", "1979-05-27", "{a = 7}"):
        assert item.name in refusal(conf=_written(conf, f"{item.name} = {toml}"))


@pytest.mark.parametrize("digits", [309, 400, 5000])
def test_a_whole_number_too_large_for_any_float_is_refused(conf: Path, digits: int) -> None:
    message = refusal(conf=_written(conf, "job_ttl = " + "9" * digits))
    assert "job_ttl" in message or str(conf) in message


@named(WORDS)
def test_only_the_listed_words_are_taken_and_a_refusal_lists_them(item: Field[Any], conf: Path) -> None:
    for word in item.metadata["choices"]:
        assert getattr(load({item.name: word}), item.name) == word
    for word in ("", "nonsense", item.metadata["choices"][0].upper(), item.metadata["choices"][0] + " "):
        message = refusal(flags={item.name: word})
        assert item.name in message
        assert all(choice in message for choice in item.metadata["choices"])


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("prot", "port"),
        ("disconect_grace", "disconnect_grace"),
        ("queue-size", "queue_size"),
        ("max_boddy", "max_body"),
        ("heart_beat", "heartbeat"),
        ("PORT", "port"),
        ("log_levle", "log_level"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(conf: Path, wrong: str, near: str) -> None:
    message = refusal(conf=_written(conf, f"{wrong} = 1"))
    assert f"'{wrong}'" in message
    assert f"'{near}'" in message


@pytest.mark.parametrize("toml", ['"" = 1', "[server]\nport = 1", "x" * 1000 + " = 1", '"☃" = 1', "[[port]]\na = 1"])
def test_no_unknown_key_is_ignored(conf: Path, toml: str) -> None:
    refusal(conf=_written(conf, toml))


@pytest.mark.parametrize("name", ["RBEE_SD_PROT", "RBEE_SD_", "RBEE_SD_QUEUESIZE"])
def test_an_unknown_variable_names_the_nearest_setting(name: str) -> None:
    assert "did you mean" in refusal(environ={name: "1"})


def test_variables_of_others_and_of_the_scripts_are_let_be() -> None:
    assert load({}, {"RBEE_PORT": "1", "XRBEE_SD_PORT": "1", "RBEE_SD_PYTHON": "python3.12"}) == Settings()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("true", True), ("TRUE", True), ("yes", True), ("0", False), ("false", False), ("No", False)],
)
def test_words_for_yes_and_no(text: str, value: bool) -> None:
    assert load({}, {"RBEE_SD_NO_AUTH": text}).no_auth is value


@pytest.mark.parametrize("text", ["2", "maybe", "tru", " true", "-1", "nan"])
def test_other_words_are_neither_yes_nor_no(text: str) -> None:
    assert "no_auth" in refusal(environ={"RBEE_SD_NO_AUTH": text})


@pytest.mark.parametrize("toml", ["1", "0", '"true"', "[]"])
def test_only_true_and_false_are_yes_and_no_in_the_file(conf: Path, toml: str) -> None:
    assert "no_auth" in refusal(conf=_written(conf, f"no_auth = {toml}"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ()),
        (",", ()),
        ("a.example", ("a.example",)),
        (" a.example ,, b.example , ", ("a.example", "b.example")),
        ("https://a.example,https://b.example", ("https://a.example", "https://b.example")),
    ],
)
def test_a_list_is_separated_by_commas(text: str, value: tuple[str, ...]) -> None:
    assert load({"allowed_hosts": text}).allowed_hosts == value
    assert load({}, {"RBEE_SD_ALLOWED_HOSTS": text}).allowed_hosts == value


@pytest.mark.parametrize("toml", ['"a.example"', "[1]", '["a.example", 1]', "[[]]", "true", "{}"])
def test_a_list_in_the_file_holds_texts_and_nothing_else(conf: Path, toml: str) -> None:
    assert "allowed_hosts" in refusal(conf=_written(conf, f"allowed_hosts = {toml}"))


@pytest.mark.parametrize("toml", ["1", "true", '["a"]', "1.5", "{}"])
def test_a_text_in_the_file_is_a_text(conf: Path, toml: str) -> None:
    assert "model" in refusal(conf=_written(conf, f"model = {toml}"))


@pytest.mark.parametrize(
    "content",
    [b"port", b"port = ", b"port = 1\nport = 2\n", b"= 1", b"\xff\xfe\x00", b"\xef\xbb\xbfport = 1", b"[", b"a = '\n'"],
)
def test_a_file_that_is_not_toml_is_named(conf: Path, content: bytes) -> None:
    conf.write_bytes(content)
    assert str(conf) in refusal(conf=conf)


def test_a_file_that_is_not_there_or_is_a_folder_is_named(conf: Path, tmp_path: Path) -> None:
    for path in (conf, tmp_path):
        assert str(path) in refusal(conf=path)
        assert str(path) in refusal(conf=str(path))
        assert str(path) in refusal(environ={"RBEE_SD_CONF": str(path)})


def test_a_secret_of_the_wrong_kind_is_not_shown(conf: Path) -> None:
    message = refusal(conf=_written(conf, "api_key = 8675309"))
    assert "api_key" in message
    assert "8675309" not in message


def _written(conf: Path, toml: str) -> Path:
    conf.write_text(toml + "\n", encoding="utf-8")
    return conf


def test_the_state_folder_follows_the_users_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_dir_of(Settings()) == tmp_path / "rbee-sd"
    for unset in (None, ""):
        monkeypatch.delenv("XDG_STATE_HOME") if unset is None else monkeypatch.setenv("XDG_STATE_HOME", unset)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert state_dir_of(Settings()) == tmp_path / ".local" / "state" / "rbee-sd"


def test_a_state_folder_that_is_set_is_taken_from_the_users_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_dir_of(Settings(state_dir="~/work")) == tmp_path / "work"


def test_a_user_without_a_home_is_asked_for_a_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="set state_dir"):
        state_dir_of(Settings(state_dir="~nobody-of-this-name/state"))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8600"),
        ("0.0.0.0", "http://127.0.0.1:8600"),
        ("::", "http://[::1]:8600"),
        ("::1", "http://[::1]:8600"),
        ("box.example.org", "http://box.example.org:8600"),
    ],
)
def test_a_worker_is_reached_from_its_own_machine(host: str, url: str) -> None:
    assert worker_url(host, 8600) == url
