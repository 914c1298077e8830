"""`engine.loading`: what is loaded, from where, and what is refused without running any of it."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rbee_sd.engine.config import EngineConfig
from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loading import load
from rbee_sd.engine.pipeline import ModelError
from rbee_sd.engine.training.parts import GUIDANCE
from tests.engine import ldm
from tests.engine.bench import config, difference, picture

Damage = Callable[[Path], None]

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"
WEIGHTS = (UNET, VAE, TEXT_ENCODER)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def single_file(classic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It as one checkpoint in the original layout."""
    return ldm.write_checkpoint(classic, tmp_path_factory.mktemp("checkpoint") / "some-checkpoint.safetensors")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that the code in a model would make, if it were run."""
    return tmp_path / "code-was-run"


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON object in a file."""
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def weights_of(model: Diffusion) -> dict[str, torch.Tensor]:
    """Every weight of a loaded model."""
    pipe = model.pipe
    parts = {"unet": pipe.unet, "vae": pipe.vae, "text_encoder": pipe.text_encoder}
    return {f"{part}.{name}": tensor for part, it in parts.items() for name, tensor in it.state_dict().items()}


def assert_same_model(first: Diffusion, second: Diffusion) -> None:
    """The weights are equal, and so is a picture."""
    mine, theirs = weights_of(first), weights_of(second)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert difference(picture(first), picture(second)) == 0


def refusal(wanted: EngineConfig) -> str:
    """What the engine says of a model that it must refuse. Another model works after it."""
    with pytest.raises(ModelError) as refused:
        load(wanted).warm_up()
    load(config("demo"))
    return str(refused.value)


def assert_names_no_path(text: str) -> None:
    """No path in what clients will read, and something to read at all."""
    assert text
    assert not {"/", "\\", "~"} & set(text), text


# What is loaded.


def test_the_demo_model_needs_no_setting_and_no_network(model: Diffusion) -> None:
    ready = model.describe()
    assert (ready.model, ready.family, ready.device, ready.dtype) == ("demo", "stable-diffusion", "cpu", "float32")
    assert (ready.width, ready.height, ready.steps, ready.guidance_scale, ready.capacity) == (128, 128, 20, GUIDANCE, 1)


def test_a_diffusers_folder_elsewhere_is_the_same_model_under_its_own_name(model: Diffusion, folder: Path) -> None:
    loaded = load(config(folder))
    assert loaded.describe().model == "some-model"
    assert_same_model(model, loaded)


def test_a_folder_may_say_what_the_model_wants_unless_a_job_says_otherwise(folder: Path) -> None:
    edit(folder / "model_index.json", _defaults={"steps": 4, "guidance_scale": 0})
    ready = load(config(folder)).describe()
    assert (ready.steps, ready.guidance_scale) == (4, 0.0)
    edit(folder / "model_index.json", _defaults={})
    ready = load(config(folder)).describe()
    assert (ready.steps, ready.guidance_scale) == (20, 7.5)


@pytest.mark.parametrize(
    "defaults",
    [
        {"steps": 0},
        {"steps": 10_000},
        {"steps": "4"},
        {"guidance_scale": -1},
        {"guidance_scale": True},
        {"seed": 1},
        "many",
        3,
    ],
)
def test_a_folder_that_says_nonsense_about_what_it_wants_is_refused(folder: Path, defaults: object) -> None:
    edit(folder / "model_index.json", _defaults=defaults)
    text = refusal(config(folder))
    assert "_defaults" in text


def test_a_folder_may_be_named_from_home(model: Diffusion, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert_same_model(model, load(config("~/some-model")))


def test_a_checkpoint_in_the_original_layout_is_the_same_model_as_its_folder(classic: Path, single_file: Path) -> None:
    loaded = load(config(single_file, model_config=str(classic)))
    assert loaded.describe().model == "some-checkpoint"
    assert_same_model(load(config(classic)), loaded)


def test_a_checkpoints_configuration_may_be_named_from_home(
    classic: Path, single_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(classic.parent))
    load(config(single_file, model_config="~/classic"))


@pytest.mark.parametrize(
    "name, original",
    [
        ("conv_in.weight", "input_blocks.0.0.weight"),
        ("down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"),
        ("down_blocks.1.attentions.0.proj_in.weight", "input_blocks.4.1.proj_in.weight"),
        ("down_blocks.3.resnets.0.conv1.weight", "input_blocks.10.0.in_layers.2.weight"),
        ("mid_block.attentions.0.norm.weight", "middle_block.1.norm.weight"),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"),
        ("up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight"),
        ("up_blocks.3.resnets.2.conv_shortcut.weight", "output_blocks.11.0.skip_connection.weight"),
        ("conv_norm_out.bias", "out.0.bias"),
    ],
)
def test_our_converter_gives_the_names_known_from_stable_diffusion_1(name: str, original: str) -> None:
    unet = {"layers_per_block": 2, "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3]}
    assert ldm.unet_name(name, unet) == original


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_model_loads_in_half_precision_and_paints_nearly_the_same(model: Diffusion, dtype: str) -> None:
    loaded = load(config("demo", dtype=dtype))
    assert loaded.describe().dtype == dtype
    assert {tensor.dtype for tensor in weights_of(loaded).values()} == {getattr(torch, dtype)}
    apart = float(np.abs(picture(loaded).astype(int) - picture(model)).mean())
    assert apart < 4


def test_loading_switches_gradients_off_on_its_thread() -> None:
    torch.set_grad_enabled(True)
    load(config("demo"))
    assert not torch.is_grad_enabled()


# What is refused.


def test_no_path_stands_in_the_refusal_of_a_missing_model(tmp_path: Path) -> None:
    assert_names_no_path(refusal(config(tmp_path / "missing")))
    assert_names_no_path(refusal(config(tmp_path / "missing.safetensors")))


@pytest.mark.parametrize(
    "name",
    ["../x", "../../x", "/etc/passwd", "/etc", "%2e%2e", ".", "~", pytest.param("x" * 300, id="300 characters")],
)
def test_a_model_named_by_a_strange_path_is_refused(name: str) -> None:
    assert_names_no_path(refusal(config(name)))


def test_an_empty_name_is_not_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert_names_no_path(refusal(config("")))


# diffusers passes the hub's client an option that it has given up.
@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")
def test_a_hub_id_without_a_network_is_refused() -> None:
    assert_names_no_path(refusal(config("nobody/nothing")).replace("nobody/nothing", ""))


@pytest.mark.parametrize("file", WEIGHTS)
def test_truncated_weights_are_refused(folder: Path, file: str) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    assert_names_no_path(refusal(config(folder)))


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 5000, b"not weights", b"<html>404</html>" * 100])
def test_files_that_are_no_weights_are_refused(folder: Path, content: bytes) -> None:
    (folder / UNET).write_bytes(content)
    assert_names_no_path(refusal(config(folder)))


@pytest.mark.parametrize("file", WEIGHTS)
def test_missing_weights_are_refused(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert_names_no_path(refusal(config(folder)))


@pytest.mark.parametrize("file", WEIGHTS)
def test_weights_that_lack_a_tensor_are_refused(folder: Path, file: str) -> None:
    weights = load_file(folder / file)
    weights.pop(sorted(weights)[3])
    save_file(weights, folder / file, {"format": "pt"})
    assert_names_no_path(refusal(config(folder)))


@pytest.mark.parametrize("file", WEIGHTS)
def test_weights_of_another_shape_are_refused(folder: Path, file: str) -> None:
    weights = load_file(folder / file)
    first = sorted(weights)[3]
    weights[first] = weights[first][:1].clone()
    save_file(weights, folder / file, {"format": "pt"})
    assert_names_no_path(refusal(config(folder)))


class Trap:
    """Unpickling it makes the mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("file", WEIGHTS)
def test_a_pickle_that_calls_itself_safetensors_is_not_unpickled(folder: Path, mark: Path, file: str) -> None:
    (folder / file).write_bytes(pickle.dumps(Trap(mark)))
    assert_names_no_path(refusal(config(folder)))
    assert not mark.exists()


def test_a_checkpoint_of_torch_that_calls_itself_safetensors_is_not_unpickled(
    classic: Path, tmp_path: Path, mark: Path
) -> None:
    file = tmp_path / "model.safetensors"
    torch.save({"state_dict": Trap(mark)}, file)
    assert_names_no_path(refusal(config(file, model_config=str(classic))))
    assert not mark.exists()


@pytest.mark.parametrize("file", WEIGHTS)
def test_a_folder_with_only_a_pickle_of_some_weights_is_refused(folder: Path, mark: Path, file: str) -> None:
    weights = folder / file
    name = "pytorch_model.bin" if file == TEXT_ENCODER else "diffusion_pytorch_model.bin"
    torch.save({**load_file(weights), "trap": Trap(mark)}, weights.with_name(name))
    weights.unlink()
    assert_names_no_path(refusal(config(folder)))
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".pth", ""])
def test_a_single_file_of_another_kind_is_refused_by_its_name_alone(
    classic: Path, single_file: Path, tmp_path: Path, suffix: str
) -> None:
    file = shutil.copy(single_file, tmp_path / f"model{suffix}")
    text = refusal(config(file, model_config=str(classic)))
    assert_names_no_path(text)
    assert "safetensors" in text


def test_a_truncated_checkpoint_is_refused(classic: Path, single_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "half.safetensors"
    file.write_bytes(single_file.read_bytes()[:100_000])
    assert_names_no_path(refusal(config(file, model_config=str(classic))))


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "first_stage_model.", "cond_stage_model."])
def test_a_checkpoint_without_one_of_its_parts_is_refused(classic: Path, tmp_path: Path, prefix: str) -> None:
    # The configuration's folder holds no weights that could stand in for the part.
    shutil.copytree(classic, tmp_path / "configuration", ignore=shutil.ignore_patterns("*.safetensors"))
    weights = {name: tensor for name, tensor in ldm.checkpoint(classic).items() if not name.startswith(prefix)}
    save_file(weights, tmp_path / "part.safetensors")
    wanted = config(tmp_path / "part.safetensors", model_config=str(tmp_path / "configuration"))
    assert_names_no_path(refusal(wanted))


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "first_stage_model.", "cond_stage_model."])
def test_a_checkpoint_that_lacks_a_tensor_is_refused(classic: Path, tmp_path: Path, prefix: str) -> None:
    weights = ldm.checkpoint(classic)
    weights.pop(next(name for name in sorted(weights) if name.startswith(prefix) and name.endswith(".weight")))
    save_file(weights, tmp_path / "lacking.safetensors")
    assert_names_no_path(refusal(config(tmp_path / "lacking.safetensors", model_config=str(classic))))


def test_a_checkpoint_without_a_configuration_is_refused_when_there_is_no_network(single_file: Path) -> None:
    assert_names_no_path(refusal(config(single_file)))


@pytest.mark.parametrize(
    "kind", ["StableDiffusionXLPipeline", "FluxPipeline", "NoSuchPipeline", ["pipeline", "Mine"], None, "/etc/passwd"]
)
def test_another_pipeline_class_is_refused(folder: Path, kind: object) -> None:
    edit(folder / "model_index.json", _class_name=kind)
    assert_names_no_path(refusal(config(folder)))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', '{"_class_name": "StableDiffusionPipeline"}'])
def test_a_broken_index_is_refused(folder: Path, content: str) -> None:
    (folder / "model_index.json").write_text(content)
    assert_names_no_path(refusal(config(folder)))


@pytest.mark.parametrize(
    "entry",
    [
        ["a_foreign_library", "Model"],
        ["os", "system"],
        ["diffusers.models", "UNet2DConditionModel"],
        ["diffusers", "AutoencoderKL"],
        ["diffusers", "DiffusionPipeline"],
        ["diffusers", "NoSuchModel"],
        [None, None],
        [],
        "a_foreign_library",
    ],
)
def test_an_index_that_names_another_class_for_a_part_is_refused(folder: Path, entry: object) -> None:
    edit(folder / "model_index.json", unet=entry)
    assert_names_no_path(refusal(config(folder)))


# Code that came with a model.


@pytest.fixture
def foreign_library(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a library that can be imported here, and makes the mark when it is."""
    (tmp_path / "a_foreign_library.py").write_text(making(mark))
    monkeypatch.syspath_prepend(tmp_path)
    return "a_foreign_library"


def making(mark: Path) -> str:
    """Source code that makes the mark."""
    return f"open({str(mark)!r}, 'w').close()\n"


def test_a_foreign_library_in_the_index_is_not_imported(folder: Path, foreign_library: str, mark: Path) -> None:
    edit(folder / "model_index.json", unet=[foreign_library, "Model"])
    assert_names_no_path(refusal(config(folder)))
    assert not mark.exists()


def test_a_foreign_library_in_a_checkpoints_configuration_is_not_imported(
    folder: Path, single_file: Path, foreign_library: str, mark: Path
) -> None:
    edit(folder / "model_index.json", unet=[foreign_library, "Model"])
    assert_names_no_path(refusal(config(single_file, model_config=str(folder))))
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["pipeline.py", "__init__.py", "StableDiffusionPipeline.py", "unet/modeling.py", "tokenizer/tokenizer.py"]
)
def test_a_python_file_that_nothing_names_is_not_run(model: Diffusion, folder: Path, mark: Path, name: str) -> None:
    (folder / name).write_text(making(mark))
    assert_same_model(model, load(config(folder)))
    assert not mark.exists()


def automatic_unet(folder: Path) -> None:
    """The UNet's configuration names code beside it, for diffusers."""
    edit(folder / "model_index.json", unet=["diffusers", "AutoModel"])
    edit(folder / "unet" / "config.json", auto_map={"AutoModel": "modeling.Mine"})


def automatic_text_encoder(folder: Path) -> None:
    """The text encoder's configuration names code beside it, for transformers."""
    edit(folder / "model_index.json", text_encoder=["transformers", "AutoModel"])
    names = {"AutoConfig": "modeling.MyConfig", "AutoModel": "modeling.Mine"}
    edit(folder / "text_encoder" / "config.json", model_type="mine", auto_map=names)


def automatic_tokenizer(folder: Path) -> None:
    """The tokenizer's configuration names code beside it, for transformers."""
    edit(folder / "model_index.json", tokenizer=["transformers", "AutoTokenizer"])
    names = {"AutoTokenizer": ["modeling.Mine", None]}
    edit(folder / "tokenizer" / "tokenizer_config.json", tokenizer_class="Mine", auto_map=names)


def own_pipeline(folder: Path) -> None:
    """The index names a pipeline class of the folder's own."""
    edit(folder / "model_index.json", _class_name=["modeling", "Mine"])


@pytest.mark.parametrize("damage", [automatic_unet, automatic_text_encoder, automatic_tokenizer, own_pipeline])
def test_a_python_file_that_a_configuration_names_is_not_run(folder: Path, mark: Path, damage: Damage) -> None:
    damage(folder)
    for place in (folder, folder / "unet", folder / "text_encoder", folder / "tokenizer"):
        (place / "modeling.py").write_text(making(mark))
    assert_names_no_path(refusal(config(folder)))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["None.py", "unet/diffusers.py", "text_encoder/transformers.py"])
def test_a_python_file_that_diffusers_takes_for_a_part_is_not_run(folder: Path, mark: Path, name: str) -> None:
    (folder / name).write_text(making(mark))
    with suppress(ModelError):
        load(config(folder))
    assert not mark.exists()


def test_the_log_says_which_model_failed_and_why(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / UNET).write_bytes(b"")
    with caplog.at_level(logging.INFO):
        refusal(config(folder))
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert str(folder) in record.getMessage()
    assert record.exc_info
