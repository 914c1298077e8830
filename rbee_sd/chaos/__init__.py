"""The chaos run: a worker under clients that come and go while everything around it fails, and the books at the end.

Runs in a process of its own, beside the worker that it starts; nothing of it is part of the worker.
"""
