"""`cli.inputs`: what `rbee-sd generate` makes of its options before it asks a worker."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from rbee_sd.cli import generate, inputs

CONTENT = b"\x89PNG what the worker shall judge"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The requests that would be sent; in a folder with files `a.png` and `m.png`."""
    requests: list[dict[str, Any]] = []

    async def keep(settings: Any, url: Any, prompts: Any, request: dict[str, Any], pictures: Any) -> None:
        requests.extend({"prompt": prompt, **request} for prompt in prompts)

    monkeypatch.setattr(generate, "_generate", keep)
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "m.png"):
        (tmp_path / name).write_bytes(CONTENT + name.encode())
    return requests


def call(*arguments: str) -> str:
    """Run `generate` with a prompt; returns what is wrong, or nothing."""
    return run("a red circle", *arguments)


def run(*arguments: str, stdin: str = "") -> str:
    """Run `generate`; returns what is wrong, or nothing."""
    ended = CliRunner().invoke(generate.command, arguments, input=stdin)
    assert ended.exit_code == (2 if ended.output else 0), ended.output
    return ended.output


def encoded(name: str) -> str:
    """A file as the request holds it."""
    return base64.b64encode(CONTENT + name.encode()).decode()


def test_the_operation_follows_from_the_files_that_are_given(asked: list[dict[str, Any]]) -> None:
    assert call() == call("--image", "a.png") == call("--image", "a.png", "--mask", "m.png", "--strength", "0.5") == ""
    image = {"prompt": "a red circle", "image": encoded("a.png")}
    assert asked == [
        {"prompt": "a red circle"},
        {"operation": "image_transform", **image},
        {"operation": "image_inpaint", **image, "mask": encoded("m.png"), "strength": 0.5},
    ]


def test_the_ending_of_the_file_is_the_format_unless_one_is_named(asked: list[dict[str, Any]]) -> None:
    assert call("-o", "a.JPG") == call("-o", "a.webp", "--format", "png") == call("-o", "a.img") == call() == ""
    assert [request.get("format") for request in asked] == ["jpeg", "png", None, None]


def test_loras_are_given_by_name_with_or_without_a_scale(asked: list[dict[str, Any]]) -> None:
    assert call("--lora", "watercolour", "--lora", "pixel art:-0.5") == ""
    assert asked[0]["loras"] == [{"name": "watercolour"}, {"name": "pixel art", "scale": -0.5}]


def test_prompts_are_arguments_or_come_over_standard_input(asked: list[dict[str, Any]]) -> None:
    assert run("a", "b") == run("-", stdin=" a\nprompt grün\n") == run(stdin="c") == run("d", "-", stdin="e") == ""
    assert [request["prompt"] for request in asked] == ["a", "b", "a\nprompt grün", "c", "d", "e"]


def test_no_prompt_is_wrong_use(asked: list[dict[str, Any]]) -> None:
    assert "no prompt" in run()
    assert "no prompt" in run("-", stdin=" \n")
    assert asked == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mask", "m.png"),
        ("--strength", "0.5"),
        ("--image", "missing.png"),
        ("--image", "."),
        ("--image", "a.png", "--mask", "missing.png"),
        ("--image", "a.png", "--strength", "much"),
        ("--image", "a.png", "--strength", "nan"),
        ("--guidance-scale", "inf"),
        ("--lora", "watercolour:much"),
        ("--lora", "watercolour:"),
        ("--lora", "watercolour:nan"),
    ],
)
def test_wrong_use_is_told_before_a_worker_is_asked(asked: list[dict[str, Any]], arguments: tuple[str, ...]) -> None:
    assert "Error: " in call(*arguments)
    assert asked == []


def test_a_file_that_cannot_be_read_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="cannot read"):
        inputs.operation_on(tmp_path, None, {})
