"""`engine.schedulers`: the names a client may ask for are the ones that can be made."""

from __future__ import annotations

import pytest

from rbee_sd.messages import SCHEDULERS


def test_the_names_clients_see_are_the_names_the_engine_knows() -> None:
    from rbee_sd.engine.schedulers import CLASSES

    assert tuple(CLASSES) == SCHEDULERS
    assert list(SCHEDULERS) == sorted(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_made_by_name_is_called_by_that_name(name: str) -> None:
    import diffusers

    from rbee_sd.engine.schedulers import CLASSES, Schedulers

    own = diffusers.EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    made = Schedulers(own).make(name, 20)
    assert type(made).__name__ == CLASSES[name][0]
    assert Schedulers(made).default == name
    assert made.config.beta_start == 0.00085
    made.set_timesteps(5)
    assert len(made.timesteps) >= 5


@pytest.mark.parametrize("name", SCHEDULERS)
def test_without_a_name_a_job_gets_a_new_one_like_the_models_own(name: str) -> None:
    import diffusers

    from rbee_sd.engine.schedulers import Schedulers

    own = Schedulers(diffusers.DDIMScheduler(beta_schedule="scaled_linear")).make(name, 20)
    schedulers = Schedulers(own)
    made = schedulers.make(None, 20)
    assert schedulers.default == name
    assert schedulers.make(None, 20) is not made
    assert type(made) is type(own)
    assert made is not own
    assert dict(made.config) == dict(own.config)


def test_a_scheduler_without_a_common_name_is_called_by_its_class() -> None:
    import diffusers

    from rbee_sd.engine.schedulers import Schedulers

    assert Schedulers(diffusers.DDPMScheduler()).default == "DDPMScheduler"


def test_a_scheduler_without_a_shift_of_its_own_ignores_the_one_that_it_is_offered() -> None:
    import diffusers
    import torch

    from rbee_sd.engine.schedulers import FLOW_CLASSES, Schedulers

    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
    for name in FLOW_CLASSES:
        offered = Schedulers(own, flow=True).make(name, 8)
        plain = Schedulers(own, flow=True).make(name, 8)
        offered.set_timesteps(8, mu=1.1)
        plain.set_timesteps(8)
        assert torch.equal(offered.sigmas, plain.sigmas), name


def test_a_shift_that_a_model_wants_is_used() -> None:
    import diffusers
    import torch

    from rbee_sd.engine.schedulers import FLOW_CLASSES, Schedulers

    own = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    for name in FLOW_CLASSES:
        little = Schedulers(own, flow=True).make(name, 8)
        much = Schedulers(own, flow=True).make(name, 8)
        little.set_timesteps(8, mu=0.5)
        much.set_timesteps(8, mu=1.1)
        assert not torch.equal(little.sigmas, much.sigmas), name


@pytest.mark.parametrize("flow", [False, True])
def test_noise_is_drawn_from_the_jobs_own_generator(flow: bool) -> None:
    import diffusers
    import torch

    from rbee_sd.engine.schedulers import Schedulers, draw_from

    own = diffusers.FlowMatchEulerDiscreteScheduler() if flow else diffusers.DDIMScheduler()
    for name in ("lcm", "dpmpp_sde"):
        results = []
        before = torch.get_rng_state()
        for _ in range(2):
            made = Schedulers(own, flow=flow).make(name, 4)
            draw_from(made, torch.Generator().manual_seed(3))
            made.set_timesteps(4)
            results.append(made.step(torch.ones(1, 4, 8, 8), made.timesteps[0], torch.ones(1, 4, 8, 8)).prev_sample)
        assert torch.equal(*results), name
        assert torch.equal(torch.get_rng_state(), before), name


def test_a_schedulers_memory_is_free_as_soon_as_nobody_holds_it() -> None:
    import gc
    import weakref

    import diffusers
    import torch

    from rbee_sd.engine.schedulers import Schedulers, draw_from, keep_timesteps_on_cpu

    own = diffusers.FlowMatchEulerDiscreteScheduler()
    made = Schedulers(own, flow=True).make("dpmpp_sde", 4)
    keep_timesteps_on_cpu(made)
    draw_from(made, torch.Generator())
    made.set_timesteps(4, device="cpu")
    ghost = weakref.ref(made)
    gc.disable()
    try:
        del made
        assert ghost() is None
    finally:
        gc.enable()


def test_timesteps_are_made_on_the_cpu_whatever_is_asked_for() -> None:
    import diffusers

    from rbee_sd.engine.schedulers import Schedulers, keep_timesteps_on_cpu

    made = Schedulers(diffusers.DDIMScheduler()).make("euler", 4)
    keep_timesteps_on_cpu(made)
    made.set_timesteps(4, device="meta")
    assert made.timesteps.device.type == "cpu"
