"""Every setting, defined once: it yields the TOML key, the RBEE_SD_… variable, the flag and the row in the docs.

Read once at start, in the front or the command line; the result is frozen and passed on. Precedence: flag,
environment, file, default. Reading blocks only for the settings file.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from rbee_sd.errors import SettingsError

PREFIX = "RBEE_SD_"
NO_SETTINGS = ("RBEE_SD_CONF", "RBEE_SD_PYTHON")
"""Variables that look like settings: the settings file itself, and the Python that bin/ sets up with."""


def setting(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """Declare one setting. `minimum` and `maximum` bound numbers, `choices` bounds words."""
    return field(
        default=default,
        metadata={
            "help": help,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "secret": secret,
        },
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """The worker's settings. Durations are seconds, sizes bytes, unless a name says otherwise."""

    # Where it listens, and who may call.
    host: str = setting("127.0.0.1", "Address to listen on. Anything but loopback needs api_keys, api_key or no_auth.")
    port: int = setting(8600, "TCP port; 0 takes a free one.", minimum=0, maximum=65535)
    api_key: str = setting(
        "", "Key that clients must send as 'Authorization: Bearer KEY' or 'X-API-Key'; empty: none.", secret=True
    )
    api_keys: str = setting(
        "",
        "File of named API keys, besides or instead of api_key; written by 'rbee-sd keys', readable by its owner only.",
    )
    no_auth: bool = setting(False, "Listen beyond loopback without a key. Only on a network you trust.")
    allowed_hosts: tuple[str, ...] = setting(
        (), "Host names, besides local ones, by which clients may address the worker (a proxy's public name)."
    )
    cors_origins: tuple[str, ...] = setting(
        (), "Web origins, besides local ones, that may call the worker, such as https://studio.example.org."
    )

    # The model and the device.
    model: str = setting(
        "demo",
        "The model for jobs that name none: demo, the name of one in models_dir, a diffusers folder, a .safetensors "
        "checkpoint, or a hub id.",
    )
    models_dir: str = setting(
        "",
        "Folder of models that jobs may name (diffusers folders, .safetensors checkpoints), and where downloads go; "
        "empty: models in the state folder.",
    )
    max_models: int = setting(
        0,
        "Models that are loaded at once, as far as memory allows; 0: as many as it allows.",
        minimum=0,
        maximum=1000,
    )
    model_config: str = setting(
        "", "Diffusers folder or hub id with the configuration of a .safetensors checkpoint; empty: found by diffusers."
    )
    device: str = setting("auto", "auto, cpu, mps, cuda or cuda:N.")
    dtype: str = setting(
        "auto",
        "Number format of the weights; auto suits it to the device.",
        choices=("auto", "float32", "float16", "bfloat16"),
    )
    threads: int = setting(0, "CPU threads of the engine; 0 leaves one core to the front.", minimum=0, maximum=1024)
    channels_last: bool = setting(True, "Keep the weights of convolutions channels last, which suits most devices.")
    attention: str = setting(
        "sdpa",
        "sdpa: PyTorch's fused attention. plain: without it, slower and larger, for devices where it fails.",
        choices=("sdpa", "plain"),
    )
    compile: bool = setting(
        False,
        "Compile the denoiser for each model's own size: minutes whenever one is loaded (see load_timeout), faster "
        "steps. Other sizes run uncompiled, and all of a model once LoRAs were used with it, until it is loaded again.",
    )
    vae_tiling: float = setting(
        2.25,
        "Images above so many megapixels are decoded in tiles, which bounds memory; smaller ones where there is none.",
        minimum=0,
        maximum=1000,
    )
    taesd: str = setting("", "Folder of a TAESD (diffusers AutoencoderTiny) that fits the model, for sharper previews.")
    model_aliases: tuple[str, ...] = setting(
        (), "Names under which OpenAI clients may ask for a model, such as gpt-image-1=demo."
    )
    lora_dir: str = setting("", "Folder of LoRAs (.safetensors), scanned at start; empty: none.")

    # Step batching.
    max_jobs: int = setting(8, "Jobs that share the device at once, at most.", minimum=1, maximum=256)
    max_rows: int = setting(
        0,
        "Rows of one forward at most (an image with guidance is two); 0 measures where more do not pay.",
        minimum=0,
        maximum=512,
    )
    measured_rows: int = setting(
        32, "Most rows that are tried when it is measured how many pay.", minimum=1, maximum=512
    )
    prompt_cache: int = setting(64, "Encoded prompts that are kept for the next job.", minimum=0, maximum=100_000)

    # Jobs.
    state_dir: str = setting("", "Folder for jobs, images and the lock; empty: rbee-sd in the user's state folder.")
    queue_size: int = setting(64, "Jobs that may wait; one more is refused with 503.", minimum=1, maximum=100_000)
    job_ttl: float = setting(
        2_592_000.0,
        "Seconds, of those a worker runs, that a finished job and its images are kept.",
        minimum=1,
        maximum=315_360_000,
    )
    job_history: int = setting(
        100_000,
        "Finished image jobs kept at most, and as many others; the oldest go first.",
        minimum=1,
        maximum=1_000_000,
    )
    job_bytes: int = setting(
        16 * 1024 * 1024 * 1024,
        "Bytes of finished images kept at most; the oldest go first.",
        minimum=1024,
        maximum=100 * 1024 * 1024 * 1024 * 1024,
    )
    job_timeout: float = setting(
        300.0, "Seconds a job may run unless it names its own timeout.", minimum=1, maximum=86_400
    )
    disconnect_grace: float = setting(
        5.0, "Seconds an unheard job waits for a listener to come back before it is cancelled.", minimum=0, maximum=3600
    )
    max_side: int = setting(2048, "Largest width or height of an image, in pixels.", minimum=64, maximum=8192)
    max_steps: int = setting(150, "Most denoise steps of a job.", minimum=1, maximum=1000)
    max_count: int = setting(8, "Most images of one job.", minimum=1, maximum=64)
    max_megapixel_steps: float = setting(
        1000.0,
        "Most work of one job: width x height x steps x count, in millions.",
        minimum=0.01,
        maximum=1_000_000_000,
    )

    # Streams and requests.
    heartbeat: float = setting(
        10.0, "Seconds between heartbeats in a silent stream; gone clients are noticed then.", minimum=0.1, maximum=10
    )
    listener_timeout: float = setting(
        20.0, "Seconds a client may leave sent data unread before it is dropped.", minimum=0.1, maximum=30
    )
    client_jobs: int = setting(
        0,
        "Jobs that one client (a named key, or an address) may have waiting; 0: any number.",
        minimum=0,
        maximum=100_000,
    )
    client_rate: float = setting(
        0.0, "Requests a second of one client, ten seconds' worth at once; 0: any number.", minimum=0, maximum=100_000
    )
    client_streams: int = setting(
        0, "Streams that one client may have open; 0: any number.", minimum=0, maximum=100_000
    )
    max_body: int = setting(
        32 * 1024 * 1024, "Largest request body, in bytes.", minimum=1024, maximum=192 * 1024 * 1024
    )
    queue_bytes: int = setting(
        256 * 1024 * 1024,
        "Input images that waiting and running jobs may hold in memory, in bytes; more is refused with 503.",
        minimum=1024,
        maximum=1024 * 1024 * 1024 * 1024,
    )

    # The process.
    drain_timeout: float = setting(
        30.0, "Seconds that accepted jobs may go on after SIGTERM.", minimum=0, maximum=86_400
    )
    cancel_timeout: float = setting(
        10.0, "Seconds the engine may take to stop a job before it is replaced.", minimum=0.1, maximum=3600
    )
    step_timeout: float = setting(
        300.0,
        "Seconds the engine may be silent while it has jobs before it is replaced.",
        minimum=0.1,
        maximum=86_400,
    )
    load_timeout: float = setting(
        600.0,
        "Seconds the engine may take to load another model before it is replaced; the first one may take any time.",
        minimum=0.1,
        maximum=86_400,
    )
    log_level: str = setting("info", "How much is logged.", choices=("debug", "info", "warning", "error"))
    log_format: str = setting("text", "Log lines as text or as JSON objects.", choices=("text", "json"))

    # Tests.
    fake_pipeline: str = setting(
        "",
        "For tests: run a fake pipeline instead of a model; names the folder whose files switch its faults on.",
    )


HINTS = get_type_hints(Settings)


def worker_url(host: str, port: int) -> str:
    """Where a worker that listens on `host` is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def state_dir_of(settings: Settings) -> Path:
    """The state folder: the one that is set, or `rbee-sd` in the user's (XDG base directories).

    Raises `SettingsError` for a user without a home.
    """
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    folder = os.path.expanduser(settings.state_dir or f"{base}/rbee-sd")
    if folder.startswith("~"):
        raise SettingsError("there is no home folder to keep the state in; set state_dir")
    return Path(folder)


def models_dir_of(settings: Settings) -> Path:
    """The folder of models: the one that is set, or `models` in the state folder. Raises `SettingsError`."""
    return Path(os.path.expanduser(settings.models_dir)) if settings.models_dir else state_dir_of(settings) / "models"


def environment_name(name: str) -> str:
    """`disconnect_grace` -> `RBEE_SD_DISCONNECT_GRACE`."""
    return PREFIX + name.upper()


def flag_name(name: str) -> str:
    """`disconnect_grace` -> `--disconnect-grace`."""
    return "--" + name.replace("_", "-")


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    conf: str | Path | None = None,
) -> Settings:
    """Gather the settings. `flags` holds those given on the command line, by name, None for absent ones.

    `conf` is a TOML file; without it, the file that RBEE_SD_CONF names, if any. Raises `SettingsError`.
    """
    environ = environ or {}
    known = {item.name: item for item in fields(Settings)}
    values: dict[str, Any] = {}
    path = conf or environ.get(environment_name("conf"))
    if path:
        for name, value in _read(Path(path)).items():
            _known(name, known, "the settings file")
            values[name] = _from_toml(known[name], value)
    for variable, text in environ.items():
        if variable.startswith(PREFIX) and variable not in NO_SETTINGS:
            name = _known(variable.removeprefix(PREFIX).lower(), known, "the environment")
            values[name] = _from_text(known[name], text)
    for name, value in (flags or {}).items():
        if value is not None:
            values[name] = _from_text(known[name], value) if isinstance(value, str) else value
    for name, value in values.items():
        _check(known[name], value)
    return Settings(**values)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from error
    except ValueError as error:
        # TOMLDecodeError and UnicodeDecodeError are kinds of it; so is what a number of 5,000 digits raises.
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from error


def _known(name: str, known: Mapping[str, Field[Any]], where: str) -> str:
    if name in known:
        return name
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0)
    raise SettingsError(f"unknown setting '{name}' in {where}; did you mean '{near[0]}'?")


def _from_toml(item: Field[Any], value: Any) -> Any:
    hint = HINTS[item.name]
    if hint is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    if hint == tuple[str, ...] and isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return tuple(value)
    if type(value) is hint:
        return value
    raise _wrong_kind(item, value)


def _from_text(item: Field[Any], text: str) -> Any:
    hint = HINTS[item.name]
    try:
        if hint is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}[
                text.lower()
            ]
        if hint == tuple[str, ...]:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return hint(text)
    except (ValueError, KeyError) as error:
        raise _wrong_kind(item, text) from error


def _wrong_kind(item: Field[Any], value: Any) -> SettingsError:
    shown = "" if item.metadata["secret"] else f", not {value!r:.100}"
    return SettingsError(f"{item.name} must be {kind_name(item.name)}{shown}")


def _check(item: Field[Any], value: Any) -> None:
    rules = item.metadata
    # Written so that NaN, which compares false to everything, is refused too.
    if rules["minimum"] is not None and not value >= rules["minimum"]:
        raise SettingsError(f"{item.name} must be at least {rules['minimum']}, not {value}")
    if rules["maximum"] is not None and not value <= rules["maximum"]:
        raise SettingsError(f"{item.name} must be at most {rules['maximum']}, not {value}")
    if rules["choices"] and value not in rules["choices"]:
        raise SettingsError(f"{item.name} must be one of {', '.join(rules['choices'])}, not {value!r}")


def kind_name(name: str) -> str:
    """What a setting's value is, in words for people."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return words.get(HINTS[name], "a list of texts")
