"""Who may import whom, what the front never loads, and what every module says about itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "rbee_sd"
HEAVY = {
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "PIL",
    "accelerate",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
}

# What each room may name, besides the standard library and packages from elsewhere.
RULES = {
    "http": {"http", "operations", "jobs", "parameters", "samplers", "settings", "errors", "messages", "keys"},
    "keys": {"errors"},
    "operations": {"operations", "jobs", "models", "messages", "settings", "errors"},
    "models": {"models", "jobs", "messages", "errors"},
    "jobs": {"jobs", "messages", "disk", "errors"},
    "worker": {"worker", "messages"},
    "metrics": {"jobs", "worker", "messages"},
    "engine": {"engine", "messages", "disk", "log", "samplers"},
    "parameters": {"parameters", "operations", "samplers"},
    "samplers": set[str](),
    "disk": set[str](),
    "client": {"client"},
    "messages": set[str](),
    "errors": set[str](),
    "log": set[str](),
    "settings": {"errors"},
}


def module_name(path: Path) -> str:
    """`rbee_sd/http/sse.py` -> `rbee_sd.http.sse`; a package's own file has the package's name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(name: str) -> Iterator[str]:
    """Every module that a module imports, also inside functions and by name through importlib."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports by a relative name"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant):
                yield str(first.value)


def room(name: str) -> str:
    """`rbee_sd.http.sse` -> `http`; a module outside the package has none."""
    parts = name.split(".")
    return parts[1] if parts[0] == "rbee_sd" and len(parts) > 1 else ""


def test_the_walk_sees_imports_inside_functions() -> None:
    assert "rbee_sd.engine.loading" in set(imports("rbee_sd.engine.supply"))
    assert "rbee_sd.server" in set(imports("rbee_sd.cli.serve"))
    assert set(RULES) <= {room(name) for name in MODULES}


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) in RULES])
def test_each_room_names_only_the_rooms_it_may(name: str) -> None:
    named = {room(imported) for imported in imports(name)} - {""}
    assert named <= RULES[room(name)]


def test_only_the_composition_root_names_both_the_worker_and_the_engine() -> None:
    both = [name for name in MODULES if {"worker", "engine"} <= {room(imported) for imported in imports(name)}]
    assert both == ["rbee_sd.server"]


def test_only_the_composition_root_and_the_command_line_name_the_front() -> None:
    front = {"http", "operations", "jobs", "worker"}
    for name in MODULES:
        if room(name) not in RULES and {room(imported) for imported in imports(name)} & front:
            assert name == "rbee_sd.server" or room(name) in ("cli", "bench", "reference"), name


@pytest.mark.parametrize("name", MODULES)
def test_heavy_packages_are_named_only_under_the_engine(name: str) -> None:
    heavy = {imported.split(".")[0] for imported in imports(name)} & HEAVY
    # A client that pastes pictures together; nothing imports it.
    allowed = {"PIL"} if name == "rbee_sd.contact_sheet" else HEAVY if room(name) == "engine" else set[str]()
    assert heavy <= allowed


def test_the_worker_does_not_know_how_its_model_was_trained() -> None:
    training = {name for name in MODULES if name.startswith("rbee_sd.engine.training")}
    assert "rbee_sd.engine.training.parts" in training
    for name in set(MODULES) - training:
        assert not training & set(imports(name)), name


def test_the_seam_needs_only_the_standard_library_and_orjson() -> None:
    roots = {imported.split(".")[0] for imported in imports("rbee_sd.messages")}
    assert roots - set(sys.stdlib_module_names) == {"orjson"}


def test_nothing_is_pickled_into_the_pipe_or_out_of_it() -> None:
    for name, tree in TREES.items():
        assert not {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"} & set(imports(name)), name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                holder = ast.unparse(node.func.value)
                # `send` and `recv` of a multiprocessing connection pickle; `send_bytes` and `recv_bytes` do not.
                assert node.func.attr != "recv", f"{name}: {holder}.recv"
                assert not (node.func.attr == "send" and "pipe" in holder), f"{name}: {holder}.send"


def public(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.AST]]:
    """The public classes and functions of a module, and the public methods of its classes."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield f"{prefix}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}.{node.name}")


# Overrides that mean what the standard library says they mean.
INHERITED = {"rbee_sd.log.TextFormatter.formatMessage", "rbee_sd.log.JsonFormatter.format"}


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_says_what_it_is(name: str) -> None:
    tree = TREES[name]
    assert ast.get_docstring(tree), f"{name} has no docstring"
    silent = [
        path
        for path, node in public(tree.body, name)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not ast.get_docstring(node)
    ]
    assert set(silent) <= INHERITED


def test_no_module_is_named_after_nothing() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "tools"}
    for name in MODULES:
        assert not vague & set(name.split(".")), name


def loaded_by(module: str) -> set[str]:
    """The top-level modules in a clean interpreter that has imported only this one."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}; print(*sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return {name.split(".")[0] for name in finished.stdout.split()}


@pytest.mark.parametrize("module", ["rbee_sd.server", "rbee_sd.cli.serve", "rbee_sd.__main__"])
def test_the_front_loads_nothing_of_the_gpu(module: str) -> None:
    assert loaded_by(module) & HEAVY == set()


@pytest.mark.parametrize("module", ["rbee_sd.engine", "rbee_sd.engine.config"])
def test_what_the_front_names_of_the_engine_is_light(module: str) -> None:
    assert loaded_by(module) & HEAVY == set()


def test_the_entry_of_the_engine_loads_neither_the_gpu_nor_the_front() -> None:
    loaded = loaded_by("rbee_sd.engine.main")
    assert loaded & HEAVY == set()
    assert loaded & {"tornado", "pydantic", "click", "sqlite3"} == set()


def test_the_client_loads_its_two_packages_and_nothing_of_the_worker() -> None:
    loaded = loaded_by("rbee_sd.client")
    assert {"httpx2", "orjson"} <= loaded
    others = {re.split(r"[>=<]", line)[0].replace("-", "_") for line in setup_requirements()} - {"httpx2", "orjson"}
    assert {"tornado", "click", "torch"} <= others
    assert loaded & (others | HEAVY | {"sqlite3", "multiprocessing"}) == set()


def setup_requirements() -> list[str]:
    """What setup.py says the plain install needs."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    return re.findall(r'^    "([\w-]+[>=<][^"]*)",$', text, flags=re.M)


def test_importing_the_package_loads_nothing_of_it() -> None:
    assert loaded_by("rbee_sd") & (HEAVY | {"tornado", "pydantic", "click", "orjson"}) == set()
