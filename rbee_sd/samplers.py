"""What other programs call the schedulers: AUTOMATIC1111's web UI and its kin, and stable-diffusion.cpp.

Any process; tables and pure functions.
"""

from __future__ import annotations

SAMPLERS = {
    "ddim": ("DDIM", ""),
    "dpmpp_2m": ("DPM++ 2M", "Uniform"),
    "dpmpp_2m_karras": ("DPM++ 2M", "Karras"),
    "dpmpp_sde": ("DPM++ SDE", ""),
    "euler": ("Euler", ""),
    "euler_a": ("Euler a", ""),
    "heun": ("Heun", ""),
    "lcm": ("LCM", ""),
    "lms": ("LMS", ""),
    "pndm": ("PLMS", ""),
    "unipc": ("UniPC", ""),
}
"""The web UI's names of sampler and schedule for each of our schedulers; no schedule where that is the ordinary one."""
SCHEDULES = (
    *("automatic", "uniform", "karras", "exponential", "polyexponential", "sgmuniform", "simple", "normal", "discrete"),
    *("ays", "gits", "beta", "ddim", "kloptimal", "alignyoursteps", "turbo"),
)
"""Names of schedules, in the form of `_plain`."""


def scheduler_of(sampler: str, schedule: str = "") -> str | None:
    """Our scheduler for a sampler under any of its usual names, None for one that is not among ours.

    The schedule may be part of the name ("DPM++ 2M Karras"). One that we do not have gives the sampler without it.
    Without a schedule DPM++ 2M is what it says; "Automatic" makes it the web UI's choice for it, Karras.
    """
    whole = _plain(sampler) + _plain(schedule)
    if whole in _KNOWN:
        return _KNOWN[whole]
    ending = next((each for each in SCHEDULES if whole.endswith(each)), "")
    return _KNOWN.get(whole.removesuffix(ending))


def _plain(name: str) -> str:
    """A name without what programs write differently: "DPM++ 2M", `dpm++2m` and `k_dpmpp_2m` are one."""
    letters = "".join(each for each in name.lower().replace("+", "p").removeprefix("k_") if each.isalnum())
    return letters.replace("ancestral", "a")


_KNOWN = {
    _plain(name): scheduler
    for scheduler, (sampler, schedule) in SAMPLERS.items()
    for name in (scheduler, sampler + schedule)
} | {_plain("DPM++ 2M Automatic"): "dpmpp_2m_karras"}
