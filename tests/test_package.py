"""What is installed: one top-level package, every module in it, a command that starts quickly."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"featcache": "featcache", "heads": "featcache/heads", "cli": "featcache/cli"}
HEAVY = ("torch", "torchaudio", "timm", "zarr", "optuna", "sklearn", "matplotlib", "numpy")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that the checkout stays clean."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in SOURCES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        ".",
    ]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_installs_nothing_at_top_level_but_featcache(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"featcache"}


def test_every_module_and_sound_is_in_the_wheel(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"{package}/{file.relative_to(ROOT / folder).as_posix()}"
        for folder, package in SOURCES.items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert len(wanted) > 30
    assert wanted - inside == set()


def test_the_command_works_from_the_wheel_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    script = "import featcache, featcache.heads, featcache.cli.main as m; print(featcache.__file__); m.main()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"],
        cwd=tmp_path,
        env=environment,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site"))
    assert "extract" in done.stdout
    assert "probe" in done.stdout
    entry = next(name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("entry_points.txt"))
    assert b"featcache = featcache.cli.main:main" in zipfile.ZipFile(wheel).read(entry)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["extract", "--help"], ["probe", "--help"]])
def test_import_and_help_load_nothing_heavy(arguments: list[str]) -> None:
    script = f"""
import atexit, sys
import featcache
atexit.register(lambda: print("loaded:", *sorted(set({HEAVY!r}) & set(sys.modules))))
if sys.argv[1:]:
    from featcache.cli.main import main
    main()
"""
    done = subprocess.run([sys.executable, "-c", script, *arguments], text=True, capture_output=True, cwd="/")
    assert done.stdout.splitlines()[-1].strip() == "loaded:", done.stdout + done.stderr


def test_the_demo_encoder_loads_neither_timm_nor_torchvision() -> None:
    script = (
        "import sys, featcache.encoders as e; e.build_encoder('logmel');"
        "print({'timm', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, cwd="/")
    assert done.stdout == "set()\n", done.stderr


def test_every_dependency_is_imported_somewhere() -> None:
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=]", line)[0] for line in project["dependencies"]]
    modules = {"scikit-learn": "sklearn"}
    source = "\n".join(file.read_text() for folder in SOURCES for file in (ROOT / folder).rglob("*.py"))
    unused = [
        name for name in names if not re.search(rf"(?m)^\s*(import|from) {modules.get(name, name)}\b", source)
    ]
    assert unused == []
    assert all(re.search(r">=.*<", line) for line in project["dependencies"])


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "featcache.cli", "--version"],
        ["-m", "featcache.cli", "probe", "--help"],
        ["-c", "import featcache.heads as h; print(h.__file__)"],
        ["-c", "import featcache; print(featcache.read_results.__module__, featcache.TokenCache)"],
    ],
)
def test_the_checkout_can_be_used_where_it_is(words: list[str]) -> None:
    done = subprocess.run([sys.executable, *words], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    if "__file__" in words[-1]:
        assert Path(done.stdout.strip()) == ROOT / "heads/__init__.py"
