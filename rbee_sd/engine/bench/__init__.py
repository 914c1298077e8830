"""Benchmarks of the engine without a front: `python -m rbee_sd.engine.bench PLAN`, for `bin/bench`.

Runs in a process of its own, because it imports torch. The plan is JSON (see `plan`); each line of standard output is
a JSON object: `part` and `parts` when a part begins, `done` for each thing done in it, and `result` at the end.
"""
