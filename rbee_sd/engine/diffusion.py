"""A loaded diffusers model: makes each image with the unmodified pipeline of its family, shared parts standing in.

Runs on the engine's main thread. A job's pipeline is a shallow copy with a scheduler of its own; its denoiser parks
for forwards that are shared, its VAE for stages between them.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from rbee_sd.engine import inputs, outputs
from rbee_sd.engine.calls import Call, Stage
from rbee_sd.engine.compiled import CompileError
from rbee_sd.engine.denoiser import SharedDenoiser
from rbee_sd.engine.device import is_out_of_memory, memory, raise_if_lost, release, to_host
from rbee_sd.engine.families import Family
from rbee_sd.engine.inputs import Inputs
from rbee_sd.engine.loras import Loras, LoraSet
from rbee_sd.engine.pipeline import GenerationError, ModelError, Picture, Plan, Report
from rbee_sd.engine.previews import Previews
from rbee_sd.engine.progress import StepCounter
from rbee_sd.engine.prompts import PromptCache
from rbee_sd.engine.recipe import recipe
from rbee_sd.engine.schedulers import Schedulers, draw_from, keep_timesteps_on_cpu
from rbee_sd.engine.strand import Strand
from rbee_sd.engine.vae import VaeStandIn
from rbee_sd.messages import INPAINT, STRENGTHS, TEXT, TRANSFORM, Curve, Generate, Ready

log = logging.getLogger(__name__)


class Diffusion:
    """A loaded model. `pipes` holds a pipeline for each operation it can do, over the same parts.

    `pipe` is the first of them, as diffusers made it.
    """

    def __init__(
        self,
        name: str,
        family: Family,
        pipes: Mapping[str, Any],
        *,
        denoiser: SharedDenoiser,
        loras: Loras,
        prompts: PromptCache,
        previews: Previews,
        max_jobs: int,
        max_side: int,
        tiling: float,
    ) -> None:
        self._name = name
        self._family = family
        self._pipes = pipes
        self.pipe = next(iter(pipes.values()))
        self.denoiser = denoiser
        self._loras = loras
        self.prompts = prompts
        self._previews = previews
        self._schedulers = Schedulers(self.pipe.scheduler, flow=family.flow)
        self._max_jobs = max_jobs
        self._max_side = max_side
        self._capacity = 1
        self._scale = int(self.pipe.vae_scale_factor)
        self._vae = VaeStandIn(self.pipe.vae, self._scale, tiling)
        self._device = denoiser.device
        self._kinds = {operation: _on(type(each), self._device) for operation, each in pipes.items()}
        self._width, self._height = _native_size(self.pipe, denoiser.module, self._scale)

    @property
    def forwards(self) -> int:
        """See `Pipeline`."""
        return self.denoiser.forwards

    @property
    def rows(self) -> int:
        """See `Pipeline`."""
        return self.denoiser.rows

    @property
    def memory(self) -> int:
        """See `Pipeline`."""
        return memory(self._device)

    @property
    def size(self) -> int:
        """See `Pipeline`."""
        modules = (part for part in self.pipe.components.values() if isinstance(part, torch.nn.Module))
        return sum(weights.nbytes for module in modules for weights in module.parameters())

    def warm_up(self) -> Curve:
        """See `Pipeline`. Goes as far as the first forward of a job as the model wants it."""
        try:
            return self._measure()
        except CompileError as error:
            log.exception("%s cannot be compiled", self._name)
            text = f"the model {self._name} cannot be compiled here ({error}); the worker's log says more"
            raise ModelError(f"{text}, and compile = false does without") from error
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryError from error
            log.exception("%s cannot be used", self._name)
            kind = type(error).__name__
            text = f"the model {self._name} fails on its first picture ({kind}); the worker's log says more"
            raise ModelError(text) from error

    def _measure(self) -> Curve:
        call = self.first_call(Generate("", "", "", 0, operation=next(iter(self._pipes))))
        while not self.denoiser.settled(call):
            self.denoiser.measure(call)
        self.denoiser.loaded(call)
        curve = self.curve_of(call)
        self._capacity = max(1, min(self._max_jobs, curve.cap))
        return curve

    def first_call(self, work: Generate) -> Call:
        """The first forward that a job asks for, to be measured; the job itself goes no further."""
        plan = self.settle(work, inputs.blank(work.width or self._width, work.height or self._height))
        strand = Strand(0, lambda: self.paint(plan, 0, _Silence()), priority=0, owner="", place=0)
        strand.wake()
        while isinstance(strand.wants, Stage):
            # A model that only inpaints looks at the picture first.
            strand.wake(strand.wants.run())
        if strand.error is not None:
            raise strand.error
        call = strand.call
        strand.end()
        return call

    def describe(self) -> Ready:
        """See `Pipeline`."""
        return Ready(
            model=self._name,
            family=self._family.name,
            device=str(self._device),
            dtype=str(self.denoiser.module.dtype).removeprefix("torch."),
            capacity=self._capacity,
            width=self._width,
            height=self._height,
            steps=self._family.steps,
            guidance_scale=self._family.guidance_scale,
            operations=tuple(self._pipes),
            schedulers=self._schedulers.names,
            multiple=self._family.multiple,
            negative=self._family.negative,
        )

    def reads(self, work: Generate) -> bool:
        """See `Pipeline`."""
        return bool(work.inputs or self._loras.missing(work.loras))

    def read(self, work: Generate) -> Inputs:
        """See `Pipeline`."""
        self._loras.fetch(self._loras.missing(work.loras))
        return inputs.read(work)

    def settle(self, work: Generate, inputs: Inputs) -> Plan:
        """See `Pipeline`."""
        notes: tuple[str, ...] = ()
        if work.operation == INPAINT and inputs.mask is None:
            notes = ("nothing of the image is transparent: all of it is changed",)
            work = replace(work, operation=TRANSFORM, strength=work.strength or STRENGTHS[TRANSFORM])
        if work.operation not in self._pipes:
            raise GenerationError("invalid_input", f"the model {self._name} cannot do {work.operation}")
        if work.scheduler not in (None, *self._schedulers.names):
            known = ", ".join(self._schedulers.names)
            raise GenerationError("invalid_input", f"the model {self._name} takes the schedulers {known}")
        width, height = inputs.width or self._width, inputs.height or self._height
        if max(width, height) > self._max_side:
            text = f"a picture of {width} x {height} is larger than this worker makes ({self._max_side})"
            raise GenerationError("invalid_input", text)
        if width % self._family.multiple or height % self._family.multiple:
            text = f"the model {self._name} makes pictures whose sides are multiples of {self._family.multiple}"
            raise GenerationError("invalid_input", text)
        steps = work.steps or self._family.steps
        strength = work.strength
        if strength is None and work.operation != TEXT:
            strength = 1.0
        total = steps if strength is None else int(steps * strength)
        if total < 1:
            raise GenerationError("invalid_input", "steps x strength must be at least 1; ask for more of either")
        if work.negative_prompt and not self._family.negative:
            notes += (f"the model {self._name} takes no negative prompt; it is left out",)
        return Plan(
            work=work,
            steps=steps,
            total=total,
            width=width,
            height=height,
            guidance_scale=self._family.guidance_scale if work.guidance_scale is None else work.guidance_scale,
            scheduler=work.scheduler or self._schedulers.default,
            strength=strength,
            inputs=inputs,
            notes=notes,
        )

    def paint(self, plan: Plan, index: int, report: Report) -> Picture:
        """See `Pipeline`."""
        loras: LoraSet = tuple(sorted(zip(plan.work.loras, plan.work.lora_scales, strict=True)))
        with self._loras.held(loras):
            return self._paint(plan, index, report, loras)

    def _paint(self, plan: Plan, index: int, report: Report, loras: LoraSet) -> Picture:
        work = plan.work
        # Now for the text encoders, which run before this job parks; before each forward once more.
        self._loras.apply(loras)
        alone = (work.job_id, index) if work.exclusive else None
        seed = work.seed + index
        # Always on the CPU: the same seed gives the same noise on every device.
        generator = torch.Generator("cpu").manual_seed(seed % 2**64)
        pipe = self._copy(plan, loras, alone, generator)
        try:
            output = pipe(
                **self._arguments(plan),
                generator=generator,
                callback_on_step_end=self._follow(plan, report),
                output_type="pt",
            )
        except RuntimeError as error:
            raise_if_lost(error, self._device)
            if not is_out_of_memory(error):
                raise
        else:
            return self._picture(plan, seed, output)
        # Not within the `except`: there the traceback still holds the tensors that are to be freed.
        release(self._device)
        size = f"{work.count} x {plan.width} x {plan.height}"
        text = f"{size} is too much for this device; ask for fewer or smaller images"
        raise GenerationError("out_of_memory", text)

    def forget(self, job_id: str) -> None:
        """See `Pipeline`."""
        self._previews.forget(job_id)

    def knee(self, call: Call, at_most: int) -> Curve | None:
        """See `Pipeline`."""
        return None if self.denoiser.measure(call, at_most) is None else self.curve_of(call)

    def curve_of(self, call: Call) -> Curve:
        """What is known of such calls, for the front and the log."""
        curve = self.denoiser.curve(call)
        rows = tuple(sorted(curve.seconds))
        ms = tuple(round(curve.seconds[each] * 1000, 3) for each in rows)
        told = Curve(*call.label, rows, ms, self.denoiser.cap(call), self._name)
        log.info("%s, %d x %d: forwards of %s rows take %s ms; %d at most", self._name, *call.label, rows, ms, told.cap)
        return told

    def _copy(self, plan: Plan, loras: LoraSet, alone: Any, generator: torch.Generator) -> Any:
        """A pipeline for one image. The weights are shared; scheduler, guidance and progress are its own."""
        pipe = copy.copy(self._pipes[plan.work.operation])
        pipe.__class__ = self._kinds[plan.work.operation]
        scheduler = self._schedulers.make(plan.work.scheduler, plan.steps)
        draw_from(scheduler, generator)
        if self._device.type == "cuda":
            keep_timesteps_on_cpu(scheduler)
        # Past diffusers' `__setattr__`, which would write them into a configuration that the copies share.
        vars(pipe).update(
            {
                self._family.denoiser: self.denoiser.stand_in(loras, alone, (plan.width, plan.height)),
                "vae": self._vae,
                "scheduler": scheduler,
                "encode_prompt": self.prompts.under(loras),
                # It would reset hooks and caches of the parts that others are using.
                "maybe_free_model_hooks": _nothing,
            }
        )
        return pipe

    def _arguments(self, plan: Plan) -> dict[str, Any]:
        work = plan.work
        arguments: dict[str, Any] = {
            "prompt": work.prompt,
            "num_inference_steps": plan.steps,
            "guidance_scale": plan.guidance_scale,
        }
        if self._family.negative:
            # None, because XL models mean something else by an empty one.
            arguments["negative_prompt"] = work.negative_prompt or None
        if work.operation != TEXT:
            arguments |= {"image": plan.inputs.image, "strength": plan.strength}
        if work.operation == INPAINT:
            arguments["mask_image"] = plan.inputs.mask
        if work.operation != TRANSFORM:
            # There the image has the size already, and says it.
            arguments |= {"width": plan.width, "height": plan.height}
        return arguments

    def _follow(self, plan: Plan, report: Report) -> Callable[..., dict[str, Any]]:
        counter: StepCounter | None = None

        def on_step_end(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal counter
            with report.aside:
                counter = counter or StepCounter(plan.total, pipe.num_timesteps)
                for step in counter.after(index + 1):
                    report.step(step)
                    if step < plan.total and report.wants_preview() and self._previews.due(plan.work.job_id):
                        self._preview(plan, pipe, step, tensors["latents"], report)
            return {}

        return on_step_end

    def _preview(self, plan: Plan, pipe: Any, step: int, latents: torch.Tensor, report: Report) -> None:
        if latents.dim() == 3:
            latents = pipe._unpack_latents(latents, plan.height, plan.width, self._scale)
        try:
            pixels = self._previews.make(plan.work.job_id, latents)
        except RuntimeError as error:
            # The picture itself may well be made; but not on a device that has gone.
            raise_if_lost(error, self._device)
            log.exception("%s: no preview", plan.work.job_id)
            return
        report.preview(step, lambda: outputs.preview_jpeg(pixels(), plan.width, plan.height))

    def _picture(self, plan: Plan, seed: int, output: Any) -> Picture:
        pixels = to_host(
            (output.images[0].float() * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
        )
        flags = getattr(output, "nsfw_content_detected", None) or [False]
        keep = None if plan.inputs.mask is None else (plan.inputs.image, plan.inputs.mask, plan.work.mask_blur)
        made_by = recipe(plan, seed, self._name, negative=self._family.negative)

        def encode() -> tuple[bytes, bytes]:
            image = outputs.composed(pixels(), keep)
            file = outputs.picture_file(image, made_by, plan.work.format, plan.work.quality)
            return file, outputs.thumbnail_jpeg(image)

        return Picture(encode, bool(flags[0]))


class _Silence:
    """A `Report` that nobody hears."""

    aside: AbstractContextManager[None] = nullcontext()

    def step(self, step: int) -> None:
        pass

    def wants_preview(self) -> bool:
        return False

    def preview(self, step: int, encode: Callable[[], bytes]) -> None:
        pass


def _on(kind: type, device: torch.device) -> Any:
    """A pipeline class that knows its device; diffusers looks for it in every module of every part, in every call."""
    return type(kind.__name__, (kind,), {"_execution_device": property(lambda _: device)})


def _native_size(pipe: Any, denoiser: Any, scale: int) -> tuple[int, int]:
    """Width and height in pixels that the model was made for."""
    side = getattr(pipe, "default_sample_size", None) or denoiser.config.sample_size
    height, width = (side, side) if isinstance(side, int) else side
    return width * scale, height * scale


def _nothing() -> None:
    pass
