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

    from rbee_sd.engine.schedulers import CLASSES, make_scheduler, name_of

    own = diffusers.EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    told, made = make_scheduler(name, own, 20)
    assert told == name
    assert type(made).__name__ == CLASSES[name][0]
    assert name_of(made) == name
    assert made.config.beta_start == 0.00085
    made.set_timesteps(5)
    assert len(made.timesteps) >= 5


@pytest.mark.parametrize("name", SCHEDULERS)
def test_without_a_name_a_job_gets_a_new_one_like_the_models_own(name: str) -> None:
    import diffusers

    from rbee_sd.engine.schedulers import make_scheduler

    _, own = make_scheduler(name, diffusers.DDIMScheduler(beta_schedule="scaled_linear"), 20)
    told, made = make_scheduler(None, own, 20)
    assert told == name
    assert type(made) is type(own)
    assert made is not own
    assert dict(made.config) == dict(own.config)


def test_a_scheduler_without_a_common_name_is_called_by_its_class() -> None:
    import diffusers

    from rbee_sd.engine.schedulers import name_of

    assert name_of(diffusers.DDPMScheduler()) == "DDPMScheduler"


def test_a_scheduler_without_a_shift_of_its_own_ignores_the_one_that_it_is_offered() -> None:
    import diffusers
    import torch

    from rbee_sd.engine.schedulers import FLOW_CLASSES, make_scheduler

    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
    for name in FLOW_CLASSES:
        _, offered = make_scheduler(name, own, 8, flow=True)
        _, plain = make_scheduler(name, own, 8, flow=True)
        offered.set_timesteps(8, mu=1.1)
        plain.set_timesteps(8)
        assert torch.equal(offered.sigmas, plain.sigmas), name


def test_a_shift_that_a_model_wants_is_used() -> None:
    import diffusers
    import torch

    from rbee_sd.engine.schedulers import FLOW_CLASSES, make_scheduler

    own = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    for name in FLOW_CLASSES:
        _, little = make_scheduler(name, own, 8, flow=True)
        _, much = make_scheduler(name, own, 8, flow=True)
        little.set_timesteps(8, mu=0.5)
        much.set_timesteps(8, mu=1.1)
        assert not torch.equal(little.sigmas, much.sigmas), name


@pytest.mark.parametrize("flow", [False, True])
def test_noise_is_drawn_from_the_jobs_own_generator(flow: bool) -> None:
    import diffusers
    import torch

    from rbee_sd.engine.schedulers import draw_from, make_scheduler

    own = diffusers.FlowMatchEulerDiscreteScheduler() if flow else diffusers.DDIMScheduler()
    for name in ("lcm", "dpmpp_sde"):
        results = []
        before = torch.get_rng_state()
        for _ in range(2):
            _, made = make_scheduler(name, own, 4, flow=flow)
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

    from rbee_sd.engine.schedulers import draw_from, keep_timesteps_on_cpu, make_scheduler

    own = diffusers.FlowMatchEulerDiscreteScheduler()
    _, made = make_scheduler("dpmpp_sde", own, 4, flow=True)
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

    from rbee_sd.engine.schedulers import keep_timesteps_on_cpu, make_scheduler

    _, made = make_scheduler("euler", diffusers.DDIMScheduler(), 4)
    keep_timesteps_on_cpu(made)
    made.set_timesteps(4, device="meta")
    assert made.timesteps.device.type == "cpu"
