"""What is on disk: the state folder and what is kept in it, the file of keys, the folder of LoRAs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from rbee_sd import keys
from rbee_sd.cli.findings import OK, PROBLEM, WARNING, Finding
from rbee_sd.errors import SettingsError, StartError
from rbee_sd.jobs import tables
from rbee_sd.jobs.store import DATABASE
from rbee_sd.operations import loras
from rbee_sd.settings import Settings, state_dir_of

ENOUGH_DISK = 2**30


def state_folder(settings: Settings) -> Iterator[Finding]:
    """Whether it can be written, has room, and is private; and what is in it."""
    try:
        folder = state_dir_of(settings)
    except SettingsError as error:
        yield Finding(PROBLEM, str(error))
        return
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        advice = "choose another with state_dir, or give this user the right to write (chown, chmod u+rwx)"
        yield Finding(PROBLEM, f"state folder {folder} cannot be written", advice)
        return
    free = shutil.disk_usage(there).free
    text = f"state folder {folder}, {free / 2**30:.1f} GiB free"
    yield Finding(OK, text) if free >= ENOUGH_DISK else Finding(WARNING, text, "images may soon not fit")
    if there == folder:
        if folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            advice = f"prompts and pictures are in it: chmod 700 {folder}"
            yield Finding(WARNING, "other users of this machine may look into the state folder", advice)
        yield from _foreign(folder)
        yield from _kept(folder / DATABASE)


def _foreign(folder: Path) -> Iterator[Finding]:
    """Files that a worker of another user, such as root, has left behind."""
    shut = [path.name for path in folder.iterdir() if not os.access(path, os.R_OK | os.W_OK)]
    if shut:
        text = f"in the state folder, this user may not write {', '.join(sorted(shut)[:5])}"
        yield Finding(PROBLEM, text, f"a worker of another user ran there: chown -R $USER {folder}")


def _kept(path: Path) -> Iterator[Finding]:
    if not path.exists():
        return
    try:
        # Read only, so that a worker which runs is not disturbed.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            totals = tables.totals(connection)
    except (sqlite3.Error, OSError) as error:
        advice = "restore it from a copy, or move it away: the worker begins anew then"
        yield Finding(PROBLEM, f"the database of jobs cannot be read ({error})", advice)
        return
    ended = sum(count for state, count in totals.states.items() if state not in ("queued", "running"))
    live = sum(totals.states.values()) - ended
    sizes = f"{path.stat().st_size / 2**20:.1f} MiB, their images {totals.bytes / 2**20:.1f} MiB"
    yield Finding(OK, f"jobs kept: {ended} ended, {live} that go on; database {sizes}")


def key_file(settings: Settings) -> Iterator[Finding]:
    """The API keys, if a file has them."""
    if settings.api_keys:
        try:
            names = keys.read(Path(settings.api_keys).expanduser())
        except SettingsError as error:
            yield Finding(PROBLEM, str(error), "'rbee-sd keys' writes such files")
        else:
            yield Finding(OK, f"API keys: {', '.join(names) or 'none yet'}")


def lora_folder(settings: Settings) -> Iterator[Finding]:
    """The LoRAs, if there is a folder of them."""
    if settings.lora_dir:
        try:
            found = loras.scan(settings.lora_dir)
        except StartError as error:
            yield Finding(PROBLEM, str(error), "name a folder that this user may read")
        else:
            yield Finding(OK, f"LoRAs: {len(found)} in {settings.lora_dir}")
