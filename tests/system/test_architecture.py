"""The order of the repository: what docs/architecture.md promises, and limits on the size of things."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("preprocess", "report", "shards_manifest", "train")
IMPORT_NAME = "spectral_shards"
LONGEST_FILE, MOST_PARAMETERS, MOST_ATTRIBUTES = 400, 8, 12

# a path below one of our folders, as text and comments write it
PATH = re.compile(
    r"(?<![\w/.:-])(?:preprocess|report|train|shards_manifest|spectral_shards|tests|benchmarks|docs|examples)"
    r"(?:/\w[\w.-]*)+\.(?:py|pyi|c|h|md|toml)\b"
)
FOLDER = re.compile(r"`((?:preprocess|report|train|shards_manifest|tests|benchmarks|docs|examples)/(?:\w+/)*)`")
LINK = re.compile(r"\]\(([\w./-]+\.(?:md|py|toml))(?:#[\w-]*)?\)")


def tracked(*patterns: str) -> list[str]:
    """Return the tracked files that are there, by their paths from the top; `patterns` may have options of ls-files."""
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def sources(*patterns: str) -> dict[str, str]:
    """Return the texts of tracked files."""
    return {name: (ROOT / name).read_text() for name in tracked(*patterns)}


# --- what the documents name


def named_paths(text: str) -> set[str]:
    """Return the files and folders of the repository that a text names."""
    return {*PATH.findall(text), *FOLDER.findall(text)}


def missing_paths(documents: Mapping[str, str]) -> list[str]:
    """Return the paths and links of documents that lead nowhere."""
    return [
        f"{document}: {path}"
        for document, text in documents.items()
        for path in sorted(named_paths(text) | {str(Path(document).parent / link) for link in LINK.findall(text)})
        if not (ROOT / path).exists()
    ]


def test_every_module_stands_in_the_architecture() -> None:
    named = named_paths((ROOT / "docs/architecture.md").read_text())
    modules = {
        name for name in tracked(*PACKAGES) if name.endswith((".py", ".c", ".h")) and not name.endswith("__init__.py")
    }
    assert len(modules) > 100
    assert sorted(modules - named) == []


def test_every_path_in_the_documents_is_there() -> None:
    documents = sources("*.md")
    assert len(documents) > 20
    assert missing_paths(documents) == []


def test_paths_that_are_not_there_are_found() -> None:
    text = "See `train/none.py`, tests/training/test_none.py, `train/none/` and [this](none.md); not `train/config.py`."
    assert missing_paths({"docs/x.md": text}) == [
        "docs/x.md: docs/none.md",
        "docs/x.md: tests/training/test_none.py",
        "docs/x.md: train/none.py",
        "docs/x.md: train/none/",
    ]


def test_git_ignores_no_module() -> None:
    ignored = tracked("--others", "--ignored", "--exclude-standard", *PACKAGES)
    assert [name for name in ignored if name.endswith((".py", ".c", ".h", ".toml"))] == []
    rules = ["git", "check-ignore", "train/runs/new.py", "train/build/new.py", "runs/new.py"]
    assert subprocess.run(rules, cwd=ROOT, capture_output=True, text=True).stdout == "runs/new.py\n"


# --- sizes


def long_files(texts: Mapping[str, str]) -> list[str]:
    """Return the files that have too many lines."""
    return [name for name, text in texts.items() if len(text.splitlines()) > LONGEST_FILE]


def long_signatures(texts: Mapping[str, str]) -> Iterator[str]:
    """Yield the functions that have too many parameters, self not counted."""
    for name, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                each = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len(each) - (each[:1] in (["self"], ["cls"])) > MOST_PARAMETERS:
                    yield f"{name}: {node.name}"


def large_classes(texts: Mapping[str, str]) -> Iterator[str]:
    """Yield the classes whose __init__ sets too many attributes. Dataclasses of options have none."""
    for name, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                starts = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
                attributes = {
                    part.attr
                    for start in starts
                    for part in ast.walk(start)
                    if isinstance(part, ast.Attribute)
                    and isinstance(part.ctx, ast.Store)
                    and isinstance(part.value, ast.Name)
                    and part.value.id == "self"
                }
                if len(attributes) > MOST_ATTRIBUTES:
                    yield f"{name}: {node.name}"


def test_files_functions_and_classes_are_small() -> None:
    texts = sources("*.py")
    assert len(texts) > 150
    assert long_files(texts) == []
    assert list(long_signatures(texts)) == []
    assert list(large_classes({name: text for name, text in texts.items() if name.startswith(PACKAGES)})) == []


def test_what_is_too_large_is_found() -> None:
    nine = ", ".join(f"p{number}" for number in range(9))
    assert long_files({"a.py": "\n" * 401, "b.py": "\n" * 400}) == ["a.py"]
    text = (
        f"def one({nine}): ...\nclass C:\n    def two(self, {nine[4:]}): ...\n    async def three(self, *, {nine}): ..."
    )
    assert list(long_signatures({"a.py": text})) == ["a.py: one", "a.py: three"]
    body = "; ".join(f"self.a{number} = number" for number in range(13))
    assert list(large_classes({"a.py": f"class C:\n    def __init__(self): {body}"})) == ["a.py: C"]
    assert list(large_classes({"a.py": f"class C:\n    def __init__(self): {body.replace('a12', 'a11')}"})) == []


# --- imports


def module_name(path: str) -> str:
    """Return the import name of a module by its path: train/cli.py is spectral_shards.train.cli."""
    parts = path.removesuffix(".py").split("/")
    inside = parts if parts[0] == IMPORT_NAME else [IMPORT_NAME, *parts]
    return ".".join(inside[:-1] if inside[-1] == "__init__" else inside)


def import_graph(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the modules that each module imports, wherever in it the import stands."""
    modules = {module_name(path): (path, text) for path, text in texts.items()}
    graph: dict[str, set[str]] = {}
    for module, (path, text) in modules.items():
        package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
        targets: set[str] = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                inner = {alias.name: f"{base}.{alias.name}" for alias in node.names}
                targets |= {name if name in modules else base for name in inner.values()}
        graph[module] = {target for target in targets if target in modules} - {module}
    return graph


def cycle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return modules that import each other in a circle; empty if there are none."""
    done: set[str] = set()

    def search(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return trail[trail.index(module) :]
        if module not in done:
            for target in sorted(graph[module]):
                if found := search(target, [*trail, module]):
                    return found
            done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := search(module, []))), [])


def test_there_are_no_import_cycles() -> None:
    graph = import_graph(sources(*(f"{package}/**.py" for package in PACKAGES), f"{IMPORT_NAME}/__init__.py"))
    assert sum(map(len, graph.values())) > 300
    assert cycle(graph) == []


def test_import_cycles_are_found() -> None:
    texts = {
        "train/__init__.py": "",
        "train/a.py": "from . import b",
        "train/b/__init__.py": "def f():\n    from ..c import x",
        "train/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b.d import x",
        "train/b/d.py": "from ...shards_manifest import e",
        "shards_manifest/e.py": "import numpy",
    }
    names = {path: module_name(path) for path in texts}
    graph = import_graph(texts)
    assert graph[names["train/a.py"]] == {"spectral_shards.train.b"}
    assert cycle(graph) == []
    texts["shards_manifest/e.py"] = "from spectral_shards.train.a import x"
    assert set(cycle(import_graph(texts))) == {names[path] for path in texts} - {"spectral_shards.train"}


def imported_tests(texts: Mapping[str, str]) -> list[str]:
    """Return the test modules that import another test module, or conftest."""
    found = []
    for name, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or "", *(alias.name for alias in node.names)]
            if any(part.startswith("test_") or part == "conftest" for each in modules for part in each.split(".")):
                found.append(name)
    return found


def test_no_test_module_imports_another() -> None:
    texts = sources("tests/**.py")
    assert len(texts) > 60
    assert imported_tests(texts) == []
    wrong = {"a": "from test_order import plans", "b": "import tests.conftest", "c": "from . import test_order as o"}
    assert imported_tests({**wrong, "d": "from support.splits import tree"}) == ["a", "b", "c"]
