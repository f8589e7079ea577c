"""What surrounds the code: one version, one command that checks, a site that has every page."""

import importlib.metadata
import os
import pkgutil
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import featcache

ROOT = Path(__file__).parents[1]
PAGES = sorted(page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md"))


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def pages_of(nav: list[dict[str, Any]]) -> list[str]:
    """The pages of a nav, in order; its entries are {title: page} or {title: entries}."""
    targets = [target for entry in nav for target in entry.values()]
    return [
        page for target in targets for page in (pages_of(target) if isinstance(target, list) else [target])
    ]


def test_the_version_is_that_of_the_installed_package() -> None:
    assert featcache.__version__ == importlib.metadata.version("featcache")


def test_the_changelog_has_a_section_for_this_version() -> None:
    assert f"\n## {featcache.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_site_lists_every_page_once() -> None:
    assert sorted(pages_of(read_yaml("mkdocs.yml")["nav"])) == sorted([*PAGES, "index.md"])


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("api/")])
def test_an_api_page_names_what_can_be_imported(page: str) -> None:
    names = re.findall(r"(?m)^::: ([\w.]+)$", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert names
    for name in names:
        pkgutil.resolve_name(name)


def test_ci_runs_the_one_script_on_every_python_that_is_supported() -> None:
    (job,) = read_yaml(".github/workflows/ci.yml")["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_hooks_run_parts_of_the_one_check_and_fetch_nothing() -> None:
    (local,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    assert [hook["entry"] for hook in local["hooks"]] == [
        ".ci/check lint",
        ".ci/check types",
        ".ci/check docs",
    ]


def test_ci_run_is_the_readme_command_and_the_other_parts_of_the_check() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"grep -m1 '(.*)' README.md", script)
    assert re.search(f"(?m){pattern}", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert script.rstrip().endswith(".ci/check lint types docs")
    assert all(os.access(ROOT / ".ci" / name, os.X_OK) for name in ("run", "check"))


def test_the_check_names_its_parts_when_asked_for_another() -> None:
    done = subprocess.run([ROOT / ".ci/check", "lint", "tpyes"], text=True, capture_output=True)
    assert done.returncode == 2
    assert done.stderr == "no part named 'tpyes'; known: lint, types, tests, docs\n"
    assert done.stdout == ""
