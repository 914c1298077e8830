"""Benchmarks: start a real worker, put a load on it from this machine, print figures beside their aims.

Run by `bin/bench`, never by the worker. Only loopback is loaded. What each figure means: `docs/performance.md`.
"""
