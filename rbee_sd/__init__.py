"""rbee-sd: a long-lived Stable Diffusion worker for one box.

Importing this package imports nothing else, so that every process pays only for the rooms it enters.
"""

__version__ = "0.1.0"
