"""The documentation is run: every bash and python block of a page, in order, in one scratch folder.

A python block that begins with ``# NAME.py`` is also saved there under this name, as its page asks.
Blocks that cannot run here (they need weights, a GPU or a fresh machine) are tagged ``console`` or ``sh``.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CLASSES = ("dog", "rain", "siren")


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.fixture
def scratch(clips: Path, tmp_path: Path) -> Path:
    """A folder as the pages assume it."""
    return shutil.copytree(clips, tmp_path, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clips.csv with 24 five-second clips of three classes."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "audio").mkdir()
    random, lines = np.random.default_rng(0), ["path,labels,split"]
    time = np.arange(5 * 16_000) / 16_000
    for index in range(24):
        kind = index % 3
        sound = np.sin(2 * np.pi * (400, 1500, 4000)[kind] * time) * 0.2 + 0.02 * random.standard_normal(
            len(time)
        )
        soundfile.write(folder / f"audio/{index}.wav", sound.astype(np.float32), 16_000)
        split = ("train", "train", "valid", "test")[index // 3 % 4]
        lines.append(f"audio/{index}.wav,{CLASSES[kind]},{split}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page: Path, scratch: Path, warm_path: str) -> None:
    environment = {**os.environ, "PATH": warm_path}
    for language, text in blocks(page):
        if named := re.match(r"# (\w+\.py)\n", text):
            (scratch / named[1]).write_text(text, encoding="utf-8")
        shell = ["bash", "-euo", "pipefail"] if language == "bash" else ["python"]
        done = subprocess.run(
            [*shell, "-c", text], cwd=scratch, env=environment, text=True, capture_output=True, timeout=300
        )
        assert done.returncode == 0, f"{page.name}:\n{text}\n{done.stdout}\n{done.stderr}"


def printed(text: str, folder: Path, path: str) -> str:
    """What a program prints."""
    environment = {**os.environ, "PATH": path}
    return subprocess.run(
        ["python", "-c", text], cwd=folder, env=environment, text=True, capture_output=True, check=True
    ).stdout


@pytest.mark.parametrize("page", ["cli", "datasets", "heads", "sizes"])
def test_a_page_made_from_the_code_is_not_stale(page: str, warm_path: str) -> None:
    rendered = printed(
        f"import make_docs; print(make_docs.render_{page}(), end='')", ROOT / "tests", warm_path
    )
    assert rendered == (ROOT / "docs" / f"{page}.md").read_text("utf-8"), "run python tests/make_docs.py"


@pytest.mark.parametrize(
    ("page", "script", "rendered"),
    [
        ("heads", "study_soundscapes", "render('heads')"),
        ("storage", "study_soundscapes", "render('storage')"),
        ("plateau", "study_plateau", "render()"),
        ("long", "bench_long", "render(s.lines())"),
    ],
)
def test_a_page_of_results_follows_from_its_lines(
    page: str, script: str, rendered: str, warm_path: str
) -> None:
    text = f"import {script} as s; print(s.{rendered}, end='')"
    assert printed(text, ROOT / "tests/benchmarks", warm_path) == (
        ROOT / "docs" / "results" / f"{page}.md"
    ).read_text("utf-8"), "render it again"


@pytest.mark.parametrize("table", ["DATASETS", "ENCODERS", "HEADS"])
def test_every_entry_of_a_table_is_in_its_page(table: str) -> None:
    import featcache.datasets.table
    import featcache.encoders
    import featcache.heads

    homes = {"DATASETS": featcache.datasets.table, "ENCODERS": featcache.encoders, "HEADS": featcache.heads}
    page = (ROOT / "docs" / f"{table.lower()}.md").read_text(encoding="utf-8")
    missing = [name for name in getattr(homes[table], table) if f"`{name}`" not in page]
    assert missing == []


def test_the_protocol_page_has_the_rate_of_each_head() -> None:
    from featcache.heads.probing.presets import PLATEAU
    from featcache.heads.registry import HEADS

    page = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| learning rate, not searched \|([^|]*)\|", page, re.MULTILINE)
    usual, *others = (part.strip() for part in row.split(";"))
    stated = {name: float(part.split()[-1]) for part in others for name in re.findall(r"`([\w-]+)`", part)}
    prototypes = next(float(part.split()[-1]) for part in others if part.startswith("prototypes"))
    for name, spec in HEADS.items():
        rates = getattr(spec.build, "rates", "dense")
        expected = prototypes if rates == "prototypes" else stated.get(name, float(usual))
        assert PLATEAU.lr_of(name) == expected, name
        fixed = float(usual) if rates == "attention" else expected
        assert PLATEAU.lr_of(name, epochs=30) == fixed, name
