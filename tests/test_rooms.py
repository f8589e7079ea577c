"""The rooms: imports go one way, nothing goes in circles, and every package says what is in it."""

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"featcache": "featcache", "heads": "featcache.heads", "cli": "featcache.cli"}
# Names alone, imported when first used: the public faces of all three packages.
FACES = {"featcache", "featcache.testing", "featcache.heads"}


def module_of(file: Path) -> str:
    folder, *rest = file.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *(part for part in rest if part != "__init__")])


FILES = {module_of(file): file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")}


def imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports anywhere but for type checkers: module names, the longest that are ours."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else node.module
        else:
            yield from imports(node)


def ours(name: str, file: Path) -> set[str]:
    found = imports(ast.parse(file.read_text(encoding="utf-8")))
    return {other for other in found if other in FILES and other != name}


PACKAGES = sorted(name for name, file in FILES.items() if file.name == "__init__.py" and name != "featcache")


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """What of ours each module imports."""
    return {name: ours(name, file) for name, file in FILES.items()}


def stage(name: str) -> int:
    return 2 if name.startswith("featcache.cli") else 1 if name.startswith("featcache.heads") else 0


def test_imports_go_one_way(graph: dict[str, set[str]]) -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others
        if name not in FACES and stage(other) > stage(name)
    ]
    assert wrong == []


def test_no_imports_go_in_circles(graph: dict[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_its_modules_are_for(package: str) -> None:
    file = FILES[package]
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    modules = {own.stem for own in file.parent.glob("*.py")} - {"__init__", "__main__"}
    rooms = {own.parent.name for own in file.parent.glob("*/__init__.py")}
    assert text
    unsaid = sorted(name for name in modules | rooms if f"``{name}``" not in text)
    assert unsaid == []


def test_no_two_classes_of_a_stage_have_one_name() -> None:
    homes: dict[str, list[str]] = {}
    for name, file in FILES.items():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(name)
    twice = {name: found for name, found in homes.items() if len(found) > 1}
    assert twice == {}


def test_a_training_step_is_five_hops_from_probe(graph: dict[str, set[str]]) -> None:
    path = ["probing.probe", "probing.rounds", "training.run", "training.trainer", "training.group"]
    names = [f"featcache.heads.{part}" for part in path]
    assert all(other in graph[name] for name, other in itertools.pairwise(names))
