"""The engine: the child process that owns the GPU and the diffusers pipelines.

Importing this package, `main`, or `config` stays light, because the front names them; torch is imported by the
modules that only the child loads.
"""
