"""AUTOMATIC1111's dialect without sockets: prompts with LoRAs in them, callers, and the room a choice takes."""

from __future__ import annotations

from typing import Any

import pytest

from rbee_sd.errors import RequestError
from rbee_sd.http.sdapi import callers, prompts
from rbee_sd.http.sdapi.callers import Callers
from rbee_sd.http.sdapi.models import model_named
from rbee_sd.http.sdapi.requests import Txt2Img
from rbee_sd.http.sdapi.translation import fields_of
from rbee_sd.jobs.registry import JobRegistry
from rbee_sd.messages import Ready
from rbee_sd.operations.limits import Limits
from rbee_sd.settings import Settings
from tests.unit.conftest import order

LORAS = ("oil paint", "ink")
MODELS = ("sd-turbo", "org/model")
LIMITS = Limits(Settings(), MODELS, lambda: None, LORAS)


@pytest.mark.parametrize(
    ("prompt", "text", "loras"),
    [
        ("a house", "a house", {}),
        ("a house <lora:ink:0.8>", "a house", {"ink": 0.8}),
        ("<lora:ink>a house", "a house", {"ink": 1.0}),
        ("a <lora:oil paint:-1> house <lora:ink:.5:0.3>", "a house", {"oil paint": -1.0, "ink": 0.5}),
        ("a <lora:ink:0.2> house <lora:ink:2.>", "a house", {"ink": 2.0}),
        ("a < lora:ink:1> house, 1 < 2 > 0", "a < lora:ink:1> house, 1 < 2 > 0", {}),
        (" two  spaces ", "two  spaces", {}),
    ],
)
def test_loras_in_a_prompt_become_fields(prompt: str, text: str, loras: dict[str, float]) -> None:
    found, entries, notes = prompts.split(prompt, LORAS)
    assert found == text
    assert {entry["name"]: entry["scale"] for entry in entries} == loras
    assert notes == []


def test_of_many_loras_that_are_not_there_a_few_are_named() -> None:
    text, loras, notes = prompts.split("a" + "".join(f"<lora:{number}>" * 3 for number in range(500)), LORAS)
    assert (text, loras) == ("a", [])
    assert len(set(notes)) == len(notes) == prompts.MAX_NOTES


@pytest.mark.parametrize(
    "tag", ["<lora:nobody:1>", "<lora:ink:much>", "<lora:ink:1e9>", "<lora:ink:nan>", "<lora:../a>"]
)
def test_a_lora_that_cannot_be_had_is_left_out_and_named(tag: str) -> None:
    text, loras, (note,) = prompts.split(f"a house {tag}", LORAS)
    assert (text, loras) == ("a house", [])
    assert "the picture is made without" in note


@pytest.mark.parametrize(
    "title", ["org/model", "org/model [0a1b2c3d4e]", "org/model.safetensors", "org/model.ckpt [0a]"]
)
def test_a_model_is_known_by_what_the_original_would_call_it(title: str) -> None:
    assert model_named(title, LIMITS) == "org/model"


@pytest.mark.parametrize("title", ["", "model", "org/model]", "../org/model", "org/model [x]"])
def test_no_other_name_is_one_of_a_model(title: str) -> None:
    with pytest.raises(RequestError, match="there is sd-turbo, org/model") as refused:
        model_named(title, LIMITS)
    assert refused.value.status == 404


def translated(limits: Limits = LIMITS, /, **fields: Any) -> dict[str, Any]:
    """The fields that a `txt2img` becomes."""
    return fields_of(Txt2Img.model_validate(fields), limits, None)[0]


def test_what_a_client_sends_becomes_our_fields() -> None:
    sent: dict[str, Any] = {
        "prompt": "a house",
        "steps": 9,
        "cfg_scale": 4.5,
        "width": 515,
        "height": 600,
        "seed": 5,
        "n_iter": 2,
    }
    made = {"prompt": "a house", "steps": 9, "guidance_scale": 4.5, "width": 512, "height": 600, "seed": 5, "count": 2}
    assert made.items() <= translated(**sent).items()
    for chance in ({}, {"seed": -1}, {"seed": ""}, {"seed": "-1"}):
        assert "seed" not in translated(**chance)


def test_sizes_are_rounded_down_to_what_the_model_makes_and_samplers_are_those_it_takes() -> None:
    wants = Ready("sd3", "sd3", "cpu", "float32", 1, 1024, 1024, 28, 7.0, schedulers=("euler", "dpmpp_2m"), multiple=16)
    limits = Limits(Settings(), MODELS, lambda: wants, ())
    made = translated(limits, width=1000, height=1024, sampler_name="DPM++ 2M", scheduler="Karras")
    assert (made["width"], made["height"], made["scheduler"]) == (992, 1024, "dpmpp_2m")
    assert "scheduler" not in translated(limits, sampler_name="Heun")


def test_a_caller_has_the_jobs_that_its_requests_wait_for_until_they_end(registry: JobRegistry) -> None:
    calls = Callers(registry)
    first, second, other = (registry.accept(order(owner=owner)) for owner in ("alice", "alice", "bob"))
    for job in (first, second, other, first):
        calls.began(job)
    assert calls.jobs("alice") == [first, second]
    registry.cancel(first, "requested")
    assert (calls.jobs("alice"), calls.jobs("bob"), calls.jobs("carol")) == ([second], [other], [])
    registry.cancel(second, "requested")
    calls.began(second)
    assert calls.jobs("alice") == []


def test_choices_of_models_do_not_take_ever_more_room(registry: JobRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "CHOICES", 2)
    calls = Callers(registry)
    for owner in ("alice", "bob", "alice", "carol"):
        calls.choose(owner, "sd-turbo")
    assert [calls.chosen(owner) for owner in ("alice", "bob", "carol")] == ["sd-turbo", None, "sd-turbo"]
