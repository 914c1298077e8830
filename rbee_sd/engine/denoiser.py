"""The model's denoiser, shared: what stands in its place in each job's pipeline, and what does the forwards.

Runs on the engine's main thread, the only one that ever runs a forward (cuDNN and cuBLAS keep state per thread).
The stand-in passes for the real module in everything but the call: that parks the job until the engine has done the
forward, together with others of the same signature.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from rbee_sd.engine.batch import Packed, content, join, pack, split, take
from rbee_sd.engine.calls import Call, park
from rbee_sd.engine.compiled import Compiled, bucket
from rbee_sd.engine.device import device_name, is_out_of_memory, raise_if_lost, release, synchronize
from rbee_sd.engine.knee import BUDGET, LATE_BUDGET, Curve, CurveFile
from rbee_sd.engine.loras import Loras, LoraSet
from rbee_sd.engine.shapes import Shape, Shapes

log = logging.getLogger(__name__)

REPEATS = 12
ENOUGH = 0.05
SLOW = 1.0
"""Forwards that are timed for each number of rows: so many, or for so many seconds, but three unless they are slow."""
MOST = 1 << 20
"""Rows; more than any number that is tried."""
FORGIVEN = 600.0
"""Seconds after which rows that were too many are tried again: it may have been a neighbour's memory."""
AHEAD = 2
"""Forwards that a GPU may be behind of what was asked of it. With more, progress would be a promise only."""


class SharedDenoiser:
    """Does the forwards of one module (a UNet or a transformer) for all jobs.

    `max_rows` is the cap if it is above 0; otherwise up to `measured_rows` are measured, and `curves` remembers it.
    `backend` compiles the module while it is loaded, see `Compiled`; empty: not compiled.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        loras: Loras,
        *,
        max_rows: int = 0,
        measured_rows: int = 32,
        curves: CurveFile | None = None,
        backend: str = "",
    ) -> None:
        self.module = module
        self._loras = loras
        self._compiled = Compiled(module, backend) if backend else None
        self._loading = True
        self.device = next(module.parameters()).device
        self._names = tuple(inspect.signature(module.forward).parameters)
        self._max_rows = max_rows
        self._measured_rows = measured_rows
        self._remembered = curves or CurveFile(None)
        self._shapes = Shapes()
        self._running: deque[Any] = deque()
        self.forwards = 0
        self.rows = 0

    def stand_in(self, loras: LoraSet, alone: tuple[str, int] | None, label: tuple[int, int]) -> StandIn:
        """What takes the module's place in a job's pipeline. `alone`: None, or the job's id and the image's index."""
        return StandIn(self, loras, alone, label)

    # What a stand-in asks.

    def call(self, arguments: tuple[Any, ...], named: dict[str, Any], seen: Seen, state: tuple[Any, ...]) -> Call:
        """The call that a pipeline makes with these arguments, in this state of the module."""
        packed = pack({**dict(zip(self._names, arguments, strict=False)), **named}, seen.digest)
        loras, alone, label = state
        shape = self._shapes.of(packed.kind)
        return Call(
            self,
            shape=shape,
            signature=(shape, loras, alone),
            lane=(shape, loras, alone and alone[0]),
            rows=packed.rows,
            arguments=(packed, loras),
            label=label,
        )

    # The `Denoiser` of `calls`.

    def forward(self, calls: Sequence[Call]) -> list[Any]:
        """See `Denoiser`."""
        self._loras.apply(calls[0].arguments[1])
        try:
            result = self._forward(calls)
        except RuntimeError as error:
            raise_if_lost(error, self.device)
            raise
        self.forwards += 1
        self.rows += sum(call.rows for call in calls)
        self._pace()
        return split(result, [call.rows for call in calls])

    def cap(self, call: Call) -> int:
        """See `Denoiser`."""
        curve = self.curve(call)
        if curve.failed_at is not None and time.monotonic() - curve.failed_at > FORGIVEN:
            curve.forgive(self._max_rows or self._measured_rows)
        return curve.cap if self._max_rows == 0 else curve.limit

    def is_too_large(self, error: Exception) -> bool:
        """See `Denoiser`."""
        return is_out_of_memory(error)

    def shrink(self, call: Call, rows: int) -> None:
        """See `Denoiser`."""
        release(self.device)
        self.curve(call).failed(rows)
        log.warning("out of memory with %d rows at %d x %d; from now on at most %d", rows, *call.label, self.cap(call))

    def halve(self, call: Call) -> tuple[Call, Call]:
        """See `Denoiser`."""
        middle = call.rows // 2
        return resized(call, range(middle)), resized(call, range(middle, call.rows))

    def join(self, first: Any, second: Any) -> Any:
        """See `Denoiser`."""
        return tuple(torch.cat(pair) for pair in zip(first, second, strict=True))

    # The knee.

    def measure(self, call: Call, at_most: int = MOST) -> Curve | None:
        """Measure one more number of rows of such calls. Returns the curve when that settles it, else None."""
        curve = self.curve(call)
        rows = curve.wanted() if self._max_rows == 0 else None
        if rows is None or rows > at_most:
            return None
        try:
            self._loras.apply(call.arguments[1])
            several = resized(call, range(rows))
            if self._loading:
                self._compile(several)
            seconds, spent = self._time(several)
        except Exception as error:
            # A job may have fewer rows than were tried, and be well.
            raise_if_lost(error, self.device)
            if not is_out_of_memory(error):
                log.exception("a forward of %d rows cannot be measured", rows)
            release(self.device)
            curve.failed(rows)
        else:
            curve.measured(rows, seconds)
            curve.spent += spent
        if curve.wanted() is not None:
            return None
        self._remembered.keep(self._key(call), curve)
        return curve

    def loaded(self, call: Call) -> None:
        """What comes now must not hold up jobs: less is measured, and nothing more is compiled.

        Before that, the module is compiled for all rows that calls like this may have together, as far as memory goes.
        Raises `CompileError`.
        """
        if self._compiled is not None:
            self._compile_all(call)
        self._loading = False

    def settled(self, call: Call) -> bool:
        """Whether it is known how many rows pay for such calls."""
        return self._max_rows > 0 or self.curve(call).wanted() is None

    def curve(self, call: Call) -> Curve:
        """What is known of such calls."""
        shape: Shape = call.shape
        if shape.curve is None:
            limit = self._max_rows or self._measured_rows
            found = None if self._max_rows else self._remembered.find(self._key(call), limit)
            shape.curve = found or Curve(limit)
            # Also of one that was found: it may have been cut short by the smaller of the two.
            shape.curve.budget = BUDGET if self._loading else LATE_BUDGET
        return shape.curve

    def _forward(self, calls: Sequence[Call]) -> tuple[torch.Tensor, ...]:
        whole = self._whole(calls)
        if self._compiled is not None and bucket(whole.rows) in calls[0].shape.compiled and self._compiled.fits:
            return self._compiled(whole)
        return self.module(**whole.arguments)  # type: ignore[no-any-return]

    def _whole(self, calls: Sequence[Call]) -> Packed:
        packed = [call.arguments[0] for call in calls]
        arguments = join(packed)
        arguments["timestep"] = arguments["timestep"].to(self.device)
        return Packed(packed[0].kind, sum(each.rows for each in packed), arguments)

    def _compile_all(self, call: Call) -> None:
        """Compile what was not measured, because the curve was remembered or the cap is set."""
        most = bucket(max(call.rows, self.cap(call)))
        try:
            self._loras.apply(call.arguments[1])
            for power in range(most.bit_length()):
                self._compile(resized(call, range(1 << power)))
        except Exception as error:
            raise_if_lost(error, self.device)
            if not is_out_of_memory(error):
                raise
            release(self.device)
            log.warning("out of memory while compiling; more rows than %s run uncompiled", call.shape.compiled)

    def _compile(self, call: Call) -> None:
        rows = bucket(call.rows)
        if self._compiled is not None and rows not in call.shape.compiled:
            self._compiled.prepare(self._whole([call]))
            call.shape.compiled.add(rows)

    def _time(self, call: Call) -> tuple[float, float]:
        """Seconds of a forward, the best of several (of one, if that takes long), and all the seconds it took.

        The first, which warms up, counts only if there is no other.
        """
        times: list[float] = []
        while (len(times) < 3 and sum(times) < SLOW) or (len(times) < REPEATS and sum(times) < ENOUGH):
            synchronize(self.device)
            began = time.perf_counter()
            self._forward([call])
            synchronize(self.device)
            times.append(time.perf_counter() - began)
        return min(times[1:] or times), sum(times)

    def _pace(self) -> None:
        """Wait for a GPU that is too far behind."""
        if self.device.type != "cuda":
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        self._running.append(event)
        if len(self._running) > AHEAD:
            self._running.popleft().synchronize()

    def _key(self, call: Call) -> str:
        """What the time of a forward depends on: this hardware, this architecture, these shapes. Not the weights."""
        compiled = self._compiled is not None and (self._loading or bool(call.shape.compiled))
        config = getattr(self.module, "config", {})
        architecture = {name: value for name, value in dict(config).items() if not name.startswith("_")}
        weight = next(parameter for parameter in self.module.parameters() if parameter.dim() > 1)
        parts = (
            type(self.module).__name__,
            json.dumps(architecture, sort_keys=True, default=str),
            device_name(self.device),
            str(weight.dtype),
            str(call.arguments[0].kind),
            str((weight.stride(), torch.get_num_threads(), torch.__version__, compiled)),
            str(sorted({type(each).__name__ for each in getattr(self.module, "attn_processors", {}).values()})),
        )
        return f"{call.label[0]}x{call.label[1]} {hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}"


def resized(call: Call, rows: range) -> Call:
    """The call with these of its rows; behind the last, they are counted from the first again."""
    packed, loras = call.arguments
    some = take(packed, [row % packed.rows for row in rows])
    return replace(call, rows=some.rows, arguments=(some, loras))


class Seen:
    """The hashes of tensors that a job passes again and again, so that each is copied from the GPU once."""

    def __init__(self) -> None:
        self._digests: dict[int, tuple[torch.Tensor, bytes]] = {}

    def digest(self, tensor: torch.Tensor) -> bytes:
        """A hash of the content."""
        if id(tensor) not in self._digests:
            # With the tensor, so that no other gets its id.
            self._digests[id(tensor)] = (tensor, content(tensor))
        return self._digests[id(tensor)][1]


class StandIn:
    """Passes for the denoiser in one job's pipeline."""

    def __init__(self, denoiser: SharedDenoiser, *state: Any) -> None:
        self._denoiser = denoiser
        self._state = state
        self._seen = Seen()

    # ControlNet pipelines, among others, ask what kind their parts are.
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._denoiser.module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser.module, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return park(self._denoiser.call(arguments, named, self._seen, self._state))

    @contextmanager
    def cache_context(self, name: str) -> Iterator[None]:
        """FLUX opens one around each call, in the module; a job that is parked in it would leave it open for all."""
        yield
