"""The shape of the house: imports point downwards, one room knows HDF5, files and functions stay small."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

import pytest

import invsolve

SOURCE = Path(invsolve.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# From the roof down; rooms on one line do not know each other.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"commands"},
    {"shell"},
    {"console", "inspection", "checks", "diagnosis"},
    {"pipeline", "report", "rerun"},
    {"contest"},
    {"run"},
    {"remote_work"},
    {"preparation", "range_work"},
    {"range_solver", "workers", "cluster", "reuse", "reached", "provenance"},
    {"registry"},
    {"tuning"},
    {"methods", "compilation"},
    {"engine", "examples", "networks"},
    {"analysis", "least_squares"},
    {"jacobian", "sampling"},
    {"problem"},
    {"coordinates", "penalty", "shapes", "histories", "rows_apart", "checkpoints", "memory", "watchdog"},
    {"models", "data"},
    {"shared_progress"},
    {"options", "config", "settings", "ranges", "tracing", "control", "crew"},
    {"events"},
    {"errors", "__init__"},
    {"_version", "allocator"},
]
COMMANDS = {f"commands/{path.name}" for path in (SOURCE / "commands").glob("*ing.py")} | {"commands/flags.py"}
BESIDE_PICTURES = {
    f"report/{name}.py" for name in ("__init__", "page", "pictures", "provenance", "rows", "words")
}  # which draw nothing themselves
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}


def module_name(path: Path) -> str:
    return ".".join(("invsolve", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports when it runs; imports for the type checker alone do not count."""
    found: set[str] = set()
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped |= {id(inner) for inner in ast.walk(node)}
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("invsolve"):
            # `from invsolve import console` names a module, `from invsolve.errors import X` a thing in one.
            base = node.module or ""
            modules = {p.stem if p.is_file() else p.name for p in SOURCE.iterdir()}
            found |= {f"{base}.{a.name}" if base == "invsolve" and a.name in modules else base for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_downwards(path: Path) -> None:
    mine = room(module_name(path))
    for target in imports(path):
        if target.startswith("invsolve") and room(target) != mine:
            assert FLOOR[room(target)] > FLOOR[mine], f"{module_name(path)} imports {target} from above or beside"


def test_no_import_goes_in_a_circle() -> None:
    graph = {module_name(p): {t for t in imports(p) if t.startswith("invsolve")} for p in FILES}
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way, module))
        if module not in done:
            for target in graph.get(module, set()):
                walk(target, (*way, module))
            done.add(module)

    for module in graph:
        walk(module, ())


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("h5py", {"data/hdf5.py", "data/store.py"}),
        ("rich", {"console.py"}),
        ("safetensors", {"data/tensor_file.py"}),
        ("ray", {f"cluster/{name}.py" for name in ("host", "session", "survey", "team", "training", "worker")}),
        ("typer", {"cli.py", "shell.py", *COMMANDS}),
        ("matplotlib", {f"report/{path.name}" for path in (SOURCE / "report").glob("*.py")} - BESIDE_PICTURES),
    ],
)
def test_one_place_knows_each_library(library: str, homes: set[str]) -> None:
    users = {
        str(path.relative_to(SOURCE))
        for path in FILES
        if any(target.split(".")[0] == library for target in imports(path) | _foreign(path))
    }
    assert users == homes


def _foreign(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_networks_know_nothing_of_us() -> None:
    for path in (SOURCE / "networks").glob("*.py"):
        assert all(room(t) == "networks" for t in imports(path) if t.startswith("invsolve")), path


def test_files_and_functions_stay_small() -> None:
    lengths = {p: p.read_text().count("\n") for p in FILES if p.stat().st_size}
    assert max(lengths.values()) <= 500
    assert statistics.median(lengths.values()) < 200
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and path.parent.name != "commands":  # there, every flag is a line
                documented = (ast.get_docstring(node) or "").count("\n")
                assert (node.end_lineno or 0) - node.lineno - documented < 55, f"{path}: {node.name}"
