"""Every scheduler, mostly on the demo model: it can do any number of steps, tells each
once, and solves the same equation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rbee_sd.engine.diffusion import Diffusion
from rbee_sd.engine.loading import load
from rbee_sd.messages import SCHEDULERS, Finished, Progress, Started
from rbee_sd.settings import Settings
from tests.engine import tiny
from tests.engine.bench import Bench, config, picture, work

RANDOM = {"dpmpp_sde", "euler_a", "lcm"}
"""Those that add noise of their own at each step."""


PUBLISHED = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
"""The scheduler configuration of the published Stable Diffusion 1.5."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    """A very small model with the published scheduler configuration."""
    folder = tiny.write("sd1", tmp_path_factory.mktemp("published") / "model")
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(PUBLISHED))
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"scheduler": ["diffusers", "PNDMScheduler"]}))
    return load(config(folder))


def told(model: Diffusion, scheduler: str | None, steps: int) -> list[int]:
    """The steps that a listener hears of."""
    bench = Bench(model)
    bench.run(work(steps=steps, scheduler=scheduler, width=32, height=32))
    bench.engine.close()
    assert {each.total for each in bench.heard(Started)} == {steps} == {each.total for each in bench.heard(Progress)}
    return [each.step for each in bench.heard(Progress)]


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_job_of_so_many_steps_tells_each_of_them_once(model: Diffusion, scheduler: str, steps: int) -> None:
    assert told(model, scheduler, steps) == list(range(1, steps + 1))


# LCM is distilled from 50 steps of its teacher; the others know no limit.
@pytest.mark.parametrize("scheduler", ["dpmpp_2m_karras", "lcm"])
def test_the_most_steps_that_the_settings_allow_can_be_done(model: Diffusion, scheduler: str) -> None:
    most = Settings().max_steps
    assert told(model, scheduler, most) == list(range(1, most + 1))


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("scheduler", [None, *SCHEDULERS])
def test_a_model_with_the_published_configuration_can_do_so_too(
    published: Diffusion, scheduler: str | None, steps: int
) -> None:
    assert told(published, scheduler, steps) == list(range(1, steps + 1))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_engine_says_each_step_in_a_message_of_its_own(bench: Bench, scheduler: str) -> None:
    bench.run(work(steps=7, scheduler=scheduler))
    assert [(said.step, said.total) for said in bench.heard(Progress)] == [(n, 7) for n in range(1, 8)]
    assert len(bench.heard(Finished)) == 1


@pytest.mark.parametrize("origin", ["model", "published"])
@pytest.mark.parametrize("scheduler", [name for name in SCHEDULERS if name not in RANDOM | {"euler"}])
def test_schedulers_without_noise_of_their_own_paint_nearly_the_same_in_many_steps(
    request: pytest.FixtureRequest, origin: str, scheduler: str
) -> None:
    # They solve one differential equation; a wrong setting (clipping, spacing, the last sigma) would show.
    loaded: Diffusion = request.getfixturevalue(origin)
    first, second = (picture(loaded, scheduler=name, steps=20, guidance_scale=3.0) for name in ("euler", scheduler))
    apart = float(np.abs(first.astype(int) - second).mean())
    assert apart < 8
