"""What the operations `model_…` do, and how a model is described to clients.

Front process, IOLoop thread; waits for the engine, for folders (in threads) and for downloads, and does not block.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rbee_sd.jobs.job import Job
from rbee_sd.jobs.runner import Errand, ErrandError
from rbee_sd.messages import Failed, LoadModel, Ready, UnloadModel
from rbee_sd.models.catalogue import Catalogue, Entry
from rbee_sd.models.downloads import Downloads

log = logging.getLogger(__name__)

ASIDE = ".removed"
"""Where a model goes before its files do: what is not removed at once is never half a model."""
ONCE = ("model_load", "model_unload")
"""Operations that are over when the worker is: its engine begins anew, and may have died of them."""


class Engine(Protocol):
    """What is needed of a worker."""

    @property
    def known(self) -> Mapping[str, Ready]:
        """What is known of models that were loaded."""

    @property
    def loaded(self) -> set[str]:
        """The models that are loaded now."""

    async def order(self, command: LoadModel | UnloadModel) -> Failed | None:
        """Have the engine do this; what it failed with, if it did."""

    def forget(self, model: str) -> None:
        """A model is no more."""


class ModelErrands:
    """The errands are in `table`, by the names of their operations. `family_of` names a diffusers class's family."""

    def __init__(
        self, catalogue: Catalogue, engine: Engine, downloads: Downloads, family_of: Callable[[str], str | None]
    ) -> None:
        self._catalogue = catalogue
        self._engine = engine
        self._downloads = downloads
        self._family_of = family_of
        self.table: dict[str, Errand] = {
            "model_list": self._list,
            "model_get": self._get,
            "model_load": self._load,
            "model_unload": self._unload,
            "model_download": self._download,
            "model_delete": self._delete,
        }

    def sweep(self) -> None:
        """Remove, in the background, what earlier runs of the worker did not come to remove."""
        _in_background(partial(_remove_left, self._catalogue.folder / ASIDE))

    def views(self) -> list[dict[str, Any]]:
        """All models as clients see them, the default first."""
        return [self._view(name) for name in self._catalogue.names]

    def _view(self, name: str) -> dict[str, Any]:
        entry, ready = self._entry(name), self._engine.known.get(name)
        family = self._family_of(entry.pipeline) if ready is None else ready.family
        view: dict[str, Any] = {
            "name": name,
            "default": name == self._catalogue.default,
            "loaded": name in self._engine.loaded,
            "kind": entry.kind,
            "family": family,
            "size": entry.size or None,
            "operations": None,
            "schedulers": None,
            "multiple_of": None,
            "negative_prompt": None,
            "defaults": None,
        }
        if ready is not None:
            defaults = {each: getattr(ready, each) for each in ("width", "height", "steps", "guidance_scale")}
            view |= {
                "operations": list(ready.operations),
                "schedulers": list(ready.schedulers),
                "multiple_of": ready.multiple,
                "negative_prompt": ready.negative,
                "defaults": defaults,
            }
        return view

    def _entry(self, name: str) -> Entry:
        entry = self._catalogue.find(name)
        if entry is None:
            raise ErrandError("model_not_found", f"the model {name} is not here any more")
        return entry

    async def _list(self, job: Job) -> dict[str, Any]:
        await self._catalogue.refresh()
        return {"models": self.views()}

    async def _get(self, job: Job) -> dict[str, Any]:
        return self._view(_name(job))

    async def _load(self, job: Job) -> dict[str, Any]:
        name = _name(job)
        await self._order(LoadModel(job.id, name, self._entry(name).source))
        return self._view(name)

    async def _unload(self, job: Job) -> dict[str, Any]:
        name = _name(job)
        await self._order(UnloadModel(job.id, name))
        return self._view(name)

    async def _download(self, job: Job) -> dict[str, Any]:
        name = _name(job)
        entry = self._catalogue.find(name)
        if entry is None or entry.kind == "hub":
            await self._downloads.fetch(name, job.id, _Progress(job).tell)
            self._engine.forget(name)
            await self._catalogue.refresh()
        else:
            job.emit("narration", text=f"the model {name} is here already; delete it first to download it anew")
        return self._view(name)

    async def _delete(self, job: Job) -> dict[str, Any]:
        name = _name(job)
        entry = self._catalogue.find(name)
        if entry is None:
            # An earlier run of the worker has got as far as that, or another job was faster.
            return {"name": name, "deleted": True, "freed": 0}
        if self._is_default(entry):
            text = f"the model {name} is the one that jobs get which name none; start the worker with another"
            raise ErrandError("model_in_use", text)
        if entry.kind != "download":
            text = f"the model {name} was not downloaded by this worker; who put it there may remove it"
            raise ErrandError("model_not_ours", text)
        # First, so that no job comes for it meanwhile.
        self._catalogue.hide(name)
        try:
            await self._order(UnloadModel(job.id, name))
            aside = await asyncio.to_thread(_set_aside, Path(entry.source), job.id)
        except OSError as error:
            log.error("the model %s cannot be removed: %s", name, error)
            raise ErrandError("storage_failed", "the model cannot be removed from the disk") from error
        finally:
            self._catalogue.hide(name, False)
            await self._catalogue.refresh()
        self._engine.forget(name)
        # However long that takes, and whether it works: it is no model any more.
        _in_background(lambda: shutil.rmtree(aside, ignore_errors=True))
        return {"name": name, "deleted": True, "freed": entry.size}

    def _is_default(self, entry: Entry) -> bool:
        """Whether it is the default model, by its name or by another: its folder may be given as a path, too."""
        default = Path(os.path.realpath(os.path.expanduser(self._catalogue.default_source)))
        return entry.name == self._catalogue.default or default.is_relative_to(os.path.realpath(entry.source))

    async def _order(self, command: LoadModel | UnloadModel) -> None:
        failed = await self._engine.order(command)
        if failed is not None:
            raise ErrandError(failed.code, failed.message)


class _Progress:
    """Turns what a download says into a job's events."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._first: tuple[float, int] | None = None

    def tell(self, line: dict[str, Any]) -> None:
        if "text" in line:
            self._job.emit("narration", text=line["text"])
            return
        done, total = line["bytes"], line["total_bytes"]
        # What an earlier attempt has brought says nothing of the speed of this one.
        since, first = self._first = self._first or (time.monotonic(), done)
        rate = (done - first) / max(time.monotonic() - since, 1e-3)
        eta = round((total - done) / rate, 1) if rate > 0 else None
        percent = round(100 * done / max(total, 1), 1)
        self._job.emit("progress", bytes=done, total_bytes=total, percent=percent, eta_s=eta)


def _name(job: Job) -> str:
    name: str = job.order.request["model"]
    return name


def _set_aside(folder: Path, job_id: str) -> Path:
    aside = folder.parent / ASIDE / job_id
    aside.parent.mkdir(exist_ok=True)
    os.rename(folder, aside)
    return aside


def _remove_left(folder: Path) -> None:
    with suppress(OSError):
        for path in folder.iterdir():
            shutil.rmtree(path, ignore_errors=True)


def _in_background(work: Callable[[], None]) -> None:
    """In a thread that the end of the worker does not wait for."""
    threading.Thread(target=work, name="remove-models", daemon=True).start()
