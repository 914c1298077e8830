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
