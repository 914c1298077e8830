"""A module compiled with torch.compile, for numbers of rows that are powers of two.

Runs on the engine's main thread and blocks it: a graph of a large model takes minutes. So graphs are made while the
model is loaded and never later, whatever has become of the module or the arguments by then.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch._C._dynamo.eval_frame import reset_code

from rbee_sd.engine.batch import Packed, take
from rbee_sd.engine.device import is_out_of_memory

MOST_GRAPHS = 64
"""More than there are powers of two to compile for. With torch's own 8, the ninth would run uncompiled, unsaid."""


class CompileError(Exception):
    """The module cannot be compiled here. Says the kind of error."""


class Compiled:
    """Runs `module` as graphs that `backend`, one of torch.compile's, has made of it."""

    def __init__(self, module: torch.nn.Module, backend: str) -> None:
        torch._dynamo.config.recompile_limit = MOST_GRAPHS
        self._module = module

        def run(**arguments: Any) -> Any:
            return module(**arguments)

        # torch keeps graphs with the code that they were made of, for good, and the module's code belongs to all
        # modules of its class. Those of a copy of this function's code can go with the model, and no others with them.
        run.__code__ = run.__code__.replace()
        self._run = torch.compile(run, backend=backend, dynamic=False)
        weakref.finalize(self, reset_code, run.__code__).atexit = False

    @property
    def fits(self) -> bool:
        """Whether the module is still as it was compiled. LoRAs wrap its layers, which stays when none is used."""
        return not getattr(self._module, "_hf_peft_config_loaded", False)

    def prepare(self, call: Packed) -> None:
        """Make the graph for calls like this with as many rows. Raises `CompileError`, or that there is no memory."""
        try:
            self._run(**padded(call))
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise CompileError(type(error).__name__) from error

    def __call__(self, call: Packed) -> tuple[torch.Tensor, ...]:
        """The module's result for a call, rows behind it included, from the graph that was made for such calls."""
        with torch.compiler.set_stance("eager_on_recompile"):
            result = self._run(**padded(call))
        # A graph's next run may write over what this one has returned.
        return tuple(tensor.clone() for tensor in result)


def bucket(rows: int) -> int:
    """The power of two that so many rows are filled up to."""
    return 1 << (rows - 1).bit_length()


def padded(call: Packed) -> dict[str, Any]:
    """The arguments of a call, its last row repeated until there are as many as the bucket has."""
    padding = [call.rows - 1] * (bucket(call.rows) - call.rows)
    # A graph is made for strides, too, and a scheduler may leave the latents in others: the copies have the usual ones.
    return dict(take(call, [*range(call.rows), *padding]).arguments)
