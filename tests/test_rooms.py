"""Who may import whom, so that science serves as a library and `-h` stays quick."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nxtools

PACKAGE = Path(nxtools.__file__).parent
MODULES = {
    ".".join(("nxtools", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

SCIENCE = {
    "pattern",
    "explain",
    "simulate",
    "score",
    "judge",
    "revise",
    "puzzles",
    "directions",
    "recordings",
    "contexts",
    "interop",
    "view",
    "report",
}
HEAVY = {"torch", "transformers", "openai", "llama_cpp", "joblib", "matplotlib"}

# What only a command that runs a model loads.
MODEL_ROOMS = ("nxtools.subject.", "nxtools.assistant.")

Import = tuple[str, bool]  # what is imported, and whether as soon as the module is


def imports(module: str) -> Iterator[Import]:
    """Every import of a module but those for type checkers, inside functions too."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def visit(node: ast.AST, at_once: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                yield from visit(other, at_once)
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_once) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            yield (base, at_once)
            yield from ((f"{base}.{alias.name}", at_once) for alias in node.names)
        inside = at_once and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def loaded_by(module: str) -> set[str]:
    """The modules of ours that are loaded as soon as one is, and itself."""
    found: set[str] = set()
    wanted = [module]
    while wanted:
        name = wanted.pop()
        while name:  # with a module its packages are loaded
            if name in MODULES and name not in found:
                found.add(name)
                wanted += [imported for imported, at_once in imports(name) if at_once]
            name = name.rpartition(".")[0]
    return found


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in SCIENCE])
def test_science_knows_neither_click_nor_commands_nor_the_store(module: str) -> None:
    forbidden = [
        name
        for name, _ in imports(module)
        if name.split(".")[0] == "click" or room(name) in ("commands", "store", "progress", "config")
    ]
    assert forbidden == []


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) == "commands"])
def test_commands_never_import_each_other(module: str) -> None:
    others = [
        name
        for name, _ in imports(module)
        if name in MODULES and name.startswith("nxtools.commands.") and not name.split(".")[2].startswith("_")
    ]
    assert others == []


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_are_imported_where_they_are_used(module: str) -> None:
    if module.startswith(MODEL_ROOMS):
        return  # held by the next test, for every command that could load them
    heavy = {name.split(".")[0] for name, at_once in imports(module) if at_once} & HEAVY
    assert heavy == set()


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in {"commands", *SCIENCE}])
def test_loading_a_command_or_science_loads_nothing_heavy(module: str) -> None:
    """Followed through our own modules, as far as they are loaded at once."""
    heavy = {
        f"{loaded}: {name}"
        for loaded in loaded_by(module)
        for name, at_once in imports(loaded)
        if at_once and name.split(".")[0] in HEAVY
    }
    assert heavy == set()


def test_the_ground_floor_stands_on_nothing_above_it() -> None:
    ground = [m for m in MODULES if m.count(".") == 1 and MODULES[m].name != "__init__.py"]
    allowed_above = {
        "nxtools.__main__": {"commands"},
        "nxtools.stage": {"store"},
        "nxtools.known": {"store"},
        "nxtools.pool": {"recordings", "pattern", "simulate"},
        "nxtools.unit": {"recordings"},
    }
    rooms = {path.parent.name for name, path in MODULES.items() if path.name == "__init__.py"} - {"nxtools"}
    for module in ground:
        above = {room(name) for name, _ in imports(module)} & rooms
        assert above <= allowed_above.get(module, set()), module
