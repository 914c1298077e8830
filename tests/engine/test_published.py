"""`engine.bench.published`: the published architectures, without their weights."""

from __future__ import annotations

import pytest
import torch

from rbee_sd.engine.bench.differences import measure
from rbee_sd.engine.bench.plan import Plan
from rbee_sd.engine.bench.published import SHAPES, RandomWeights, Shape, opened
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loading import load
from rbee_sd.engine.pipeline import ModelError
from tests.engine.bench import TOLERANCE, config, difference, picture

PUBLISHED = {
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
}
"""Parameters, as counted in the published weights."""


def small(name: str) -> Shape:
    """The same with few and narrow layers."""
    shape = SHAPES[name]
    channels = (32, 64, 64, 64)[: len(shape.unet["block_out_channels"])]
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    changes = {"sample_size": 8, "block_out_channels": channels, "cross_attention_dim": 32 * len(shape.texts)}
    if len(shape.texts) == 2:
        changes |= {"attention_head_dim": (2, 4, 4), "projection_class_embeddings_input_dim": 6 * 256 + 32}
    return Shape(
        unet={**shape.unet, **changes},
        vae={**shape.vae, "block_out_channels": (32, 32, 32, 32)},
        texts=tuple({**each, **text, "projection_dim": 32} for each in shape.texts),
    )


def made(name: str, dtype: str = "float32") -> Diffusion:
    """A small one as the benchmark loads it."""
    source = RandomWeights(small(name), torch.device("cpu"))
    return load(config(f"random:{name}", dtype=dtype), source)


@pytest.mark.parametrize("name", SHAPES)
def test_the_parts_have_as_many_parameters_as_the_published_ones(name: str) -> None:
    pipe = SHAPES[name].build(torch.device("meta"), torch.float16)
    modules = {part: each for part, each in pipe.components.items() if isinstance(each, torch.nn.Module)}
    assert {part: sum(each.numel() for each in module.parameters()) for part, module in modules.items()} == PUBLISHED[
        name
    ]
    assert {each.dtype for module in modules.values() for each in module.parameters()} == {torch.float16}
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(("name", "family"), [("sd15", "stable-diffusion"), ("sdxl", "stable-diffusion-xl")])
def test_such_a_model_paints_the_same_noise_every_time(name: str, family: str) -> None:
    model = made(name)
    assert model.describe().family == family
    assert model.describe().width == 64
    first = picture(model)
    assert first.std() > 1
    assert difference(first, picture(model)) == 0
    assert difference(first, picture(made(name))) == 0
    assert difference(first, picture(model, seed=2)) > 0


def test_an_unknown_shape_is_refused_with_those_there_are() -> None:
    with pytest.raises(ModelError, match="random:sd15 and random:sdxl"):
        opened(config("random:sd9"))


def test_pictures_in_company_are_compared_with_those_made_alone_in_each_number_format() -> None:
    plan = Plan(
        model="demo",
        device="cpu",
        dtype="auto",
        threads=1,
        max_rows=0,
        side=64,
        steps=2,
        images=3,
        ways=(),
        rounds=0,
        rows=(),
        forwards=0,
        variants=(),
        moments=0,
        dtypes=("auto", "bfloat16", "float12"),
    )
    done: list[int] = []
    found = measure(config("demo"), plan, lambda: done.append(1))
    assert len(done) == 3
    assert found["float12"] == "ModelError"
    for dtype in ("float32", "bfloat16"):
        figures = found[dtype]
        assert isinstance(figures, dict)
        assert figures["rows"] == 6
        assert 0 <= figures["mean"] <= figures["largest"]
        assert figures["contrast"] > 10
    assert found["float32"]["largest"] <= TOLERANCE  # type: ignore[index, operator]
