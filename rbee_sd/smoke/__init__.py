"""Smoke tests: run by a person or a cron job against a live worker. Clients only; they start nothing."""

from __future__ import annotations


class SmokeError(Exception):
    """The worker did not do what it should."""


def say(text: str) -> None:
    """Tell what is being done."""
    print(text, flush=True)
