"""The text that every machine with Python has: its own documentation, as documents with names.

Two kinds of documents: the topics of the language reference that `help()` shows, and for each module of the
standard library the docstrings of its source file. The source is parsed, never imported, so nothing runs, and
it works under `python -OO` as well. The text differs a little from one version of Python to the next.
"""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from nxtools.errors import InputError, UsageError

PARTS = ("all", "train", "held-out")
HELD_OUT_ONE_IN = 5

# Not documentation: tests, programs that come with Python, other people's packages, the topics themselves.
SKIPPED_FOLDERS = {
    "__pycache__",
    "_bundled",
    "dist-packages",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}


def documents(part: str = "all", library: Path | None = None) -> Iterator[tuple[str, str]]:
    """(name, text) of each document: topics by name, then modules by name; equal texts once.

    `part` is "all", "train" or "held-out", see `is_held_out`. `library` is the folder of the standard
    library, by default that of the Python which is running. Warns when the library has no source files, as in
    some stripped-down Pythons. Raises UsageError for another part, InputError when there is no text at all.
    """
    if part not in PARTS:
        raise UsageError(f"no part {part!r} of Python's documentation", hint="one of " + ", ".join(PARTS))
    return _documents(part, library or Path(sysconfig.get_path("stdlib")))


def is_held_out(name: str) -> bool:
    """Whether a document is kept out of training: a fifth is, by the sha256 of its name.

    By the name, because the texts change a little with every version of Python: so a subject that was trained
    with one version has not seen the documents that another version holds out.
    """
    return int.from_bytes(sha256(name.encode()).digest()) % HELD_OUT_ONE_IN == 0


def library_state(library: Path | None = None) -> str:
    """A digest that changes when a source file of the library does: by path, size and time of change.

    Finding it takes a hundredth of the time that reading the documentation takes.
    """
    library = library or Path(sysconfig.get_path("stdlib"))
    digest = sha256(f"{sys.version}\n{library}\n".encode())
    topics = find_spec("pydoc_data.topics")
    sources = [path for _, path in _module_sources(library)]
    for path in [*sources, *([Path(topics.origin)] if topics and topics.origin else [])]:
        state = path.stat() if path.exists() else None  # a link may lead nowhere
        digest.update(f"{path}\n{state and (state.st_size, state.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


def _documents(part: str, library: Path) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for name, text in _all_documents(library):
        if text in seen:
            continue
        seen.add(text)
        if part == "all" or is_held_out(name) == (part == "held-out"):
            yield name, text
    if not seen:
        raise InputError("this Python comes without its documentation", hint="name text files instead")


def _all_documents(library: Path) -> Iterator[tuple[str, str]]:
    yield from _topics()
    sources = _module_sources(library)
    if not sources:
        warnings.warn(f"no Python source in {library}: its docstrings are left out", stacklevel=3)
    for module, path in sources:
        docstrings = _docstrings(path)
        if docstrings:
            yield f"modules/{module}", "\n\n".join(docstrings) + "\n"


def _topics() -> Iterator[tuple[str, str]]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        warnings.warn("this Python has no pydoc_data: the topics of its reference are left out", stacklevel=4)
        return
    for name, text in sorted(topics.items()):
        if text.strip():
            yield f"topics/{name}", text


def _module_sources(library: Path) -> list[tuple[str, Path]]:
    """Dotted name and file of each module below a folder, by name."""
    modules = []
    for folder, subfolders, files in os.walk(library):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS]
        for path in (Path(folder, name) for name in files if name.endswith(".py")):
            parts = path.relative_to(library).with_suffix("").parts
            modules.append((".".join(parts).removesuffix(".__init__"), path))
    return sorted(modules)


def _docstrings(path: Path) -> list[str]:
    """The docstrings of a module, of its classes and of its functions, in the order of the source."""
    try:
        with tokenize.open(path) as source:  # honours the coding line
            tree = ast.parse(source.read(), filename=str(path))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        warnings.warn(f"{path}: left out: {error}", stacklevel=4)
        return []
    return [text for node in _definitions(tree) if (text := (ast.get_docstring(node) or "").strip())]


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(node: ast.AST) -> Iterator[Documented]:
    if isinstance(node, Documented):
        yield node
    # Expressions, most of any tree, define nothing that has a docstring.
    for block in ("body", "handlers", "orelse", "finalbody", "cases"):
        for statement in getattr(node, block, ()):
            yield from _definitions(statement)
