"""AUTOMATIC1111's dialect, `/sdapi/v1`: what programs that were written for its web UI call. Front process.

Nothing of theirs is run here: each request becomes a job like any other, and what cannot be had is said.
"""
