"""`rbee-sd models`: which operations it asks a worker for, and what it tells."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from rbee_sd.cli.models import command
from rbee_sd.client import ApiError, AsyncClient

DEMO = {"name": "demo", "default": True, "loaded": True, "kind": "embedded", "family": None, "size": 12_191_654}
OTHER = {"name": "owner/name", "default": False, "loaded": False, "kind": "hub", "family": "flux", "size": None}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The operations that a worker was asked for."""
    operations: list[dict[str, Any]] = []

    async def answer(self: AsyncClient, operation: str, *, on_event: object, **fields: Any) -> Any:
        operations.append({"operation": operation, **fields})
        return {"models": [DEMO, OTHER]}

    monkeypatch.setattr(AsyncClient, "result", answer)
    return operations


def call(*arguments: str) -> Result:
    """Run it."""
    ended = CliRunner().invoke(command, arguments)
    assert ended.exit_code == 0, ended.output
    return ended


@pytest.mark.parametrize(
    ("arguments", "operation"),
    [
        (("pull", "owner/name"), "model_download"),
        (("remove", "owner/name"), "model_delete"),
        (("load", "owner/name"), "model_load"),
        (("unload", "owner/name"), "model_unload"),
    ],
)
def test_each_command_is_an_operation_on_a_model(
    asked: list[dict[str, Any]], arguments: tuple[str, ...], operation: str
) -> None:
    assert call(*arguments).output.startswith("owner/name  ")
    assert asked == [{"operation": operation, "model": "owner/name"}]


def test_models_are_listed_for_people_and_for_programs(asked: list[dict[str, Any]]) -> None:
    demo, other = call().output.splitlines()
    assert demo.split() == ["demo", "0.01", "GiB", "embedded", "default,", "loaded"]
    assert other.split() == ["owner/name", "?", "flux"]
    assert call("list", "--json").output.splitlines()[0].startswith('{"name": "demo"')
    assert asked == [{"operation": "model_list"}] * 2


def test_what_the_worker_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: AsyncClient, operation: str, **fields: Any) -> Any:
        raise ApiError(httpx2.Response(400, json={"error": {"code": "c", "type": "t", "message": "no such model"}}))

    monkeypatch.setattr(AsyncClient, "result", refuse)
    ended = CliRunner().invoke(command, ["load", "x"])
    assert ended.exit_code == 2
    assert "rbee-sd: no such model" in ended.output
