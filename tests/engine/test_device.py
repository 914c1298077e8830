"""`engine.device`: the choice of device, number format and threads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rbee_sd.engine import device as module
from rbee_sd.engine.device import (
    DTYPES,
    choose_device,
    choose_dtype,
    device_name,
    free_memory,
    raise_if_lost,
    set_threads,
)
from rbee_sd.engine.loading import load
from rbee_sd.engine.pipeline import DeviceLostError, ModelError
from rbee_sd.settings import Settings
from tests.engine.bench import config


@pytest.mark.parametrize(
    "cuda, mps, chosen",
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_cuda_before_mps_before_the_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == chosen


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("wanted", ["cuda:99", "cuda:x", "cpu:-1", "gpu", "", "CPU", "meta"])
def test_a_device_that_is_not_there_is_refused_by_name_with_a_way_out(wanted: str) -> None:
    with pytest.raises(ModelError) as refused:
        choose_device(wanted)
    assert f"'{wanted}'" in str(refused.value)
    assert "auto" in str(refused.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_gpu_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ModelError, match=r"no device 'cuda' here; try device auto"):
        load(config("no-such-model", device="cuda"))


@pytest.mark.parametrize(
    "wanted, device, chosen",
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.float16),
        ("auto", "cuda:1", torch.float16),
        ("auto", "mps", torch.float32),
        ("float32", "cuda", torch.float32),
        ("float16", "cpu", torch.float16),
        ("bfloat16", "cuda", torch.bfloat16),
        ("bfloat16", "cpu", torch.bfloat16),
    ],
)
def test_the_number_format_suits_the_device_unless_one_is_named(wanted: str, device: str, chosen: torch.dtype) -> None:
    assert choose_dtype(wanted, torch.device(device)) is chosen


def test_every_number_format_that_the_settings_allow_is_known() -> None:
    choices = Settings.__dataclass_fields__["dtype"].metadata["choices"]
    assert {"auto", *DTYPES} == set(choices)


def test_threads_are_as_many_as_asked_for_or_one_core_less_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(2) == torch.get_num_threads() == 2
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
        assert set_threads(0) == torch.get_num_threads() == 2
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
        assert set_threads(0) == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("limit, free", [("max", 4 << 30), (str(3 << 30), (1 << 30) - (3 << 27))])
def test_a_container_has_no_more_memory_than_it_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, free: int
) -> None:
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(f"{5 << 29}\n")
    (tmp_path / "memory.stat").write_text(f"anon 3\nfile 4\ninactive_file {1 << 29}\n")
    monkeypatch.setattr(module, "_group", lambda: tmp_path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=6 << 30, total=64 << 30))
    assert free_memory(torch.device("cpu")) == free


def test_a_device_that_answers_no_more_after_an_error_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    error, device = RuntimeError("an illegal memory access"), torch.device("cpu")
    raise_if_lost(error, device)

    def fail(_: torch.device) -> None:
        raise RuntimeError("the same again")

    monkeypatch.setattr(module, "synchronize", fail)
    raise_if_lost(torch.OutOfMemoryError("CUDA out of memory"), device)
    with pytest.raises(DeviceLostError) as lost:
        raise_if_lost(error, device)
    assert lost.value.__cause__ is error


def test_a_cpu_is_called_what_linux_calls_it_and_else_what_python_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processors = tmp_path / "cpuinfo"
    monkeypatch.setattr(module, "PROCESSORS", processors)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert device_name(torch.device("cpu")) == "cpu riscv64"
    processors.write_text("processor\t: 0\nBogoMIPS\t: 50.00\nCPU part\t: 0xd0c\n")
    assert device_name(torch.device("cpu")) == "cpu riscv64"
    processors.write_text("processor\t: 0\nmodel name\t: Quick (R) 9: 3 GHz\nprocessor\t: 1\nmodel name\t: other\n")
    assert device_name(torch.device("cpu")) == "cpu Quick (R) 9: 3 GHz"
