"""C that is compiled when it is first needed: kept, found again, and never what somebody else put there."""

import os
import sys
from pathlib import Path

import pytest

from featcache import compiled

SOURCE = Path(compiled.__file__).parent / "cache" / "write" / "csrc" / "clip.c"
build = compiled.library.__wrapped__
needs_compiler = pytest.mark.skipif(compiled.library(SOURCE) is None, reason="no C compiler, or no AVX2")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEATCACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("compiler", ["/nowhere/cc", sys.executable])
def test_without_a_working_compiler_there_is_none(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    assert build(SOURCE) is None


@needs_compiler
def test_compiled_code_is_kept_and_found_again(home: Path) -> None:
    assert build(SOURCE) is not None
    (kept,) = (home / "native").iterdir()
    made = kept.stat().st_mtime_ns
    assert build(SOURCE) is not None
    assert kept.stat().st_mtime_ns == made


@needs_compiler
def test_code_that_others_could_have_planted_is_not_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []
    monkeypatch.setattr(compiled.ctypes, "CDLL", lambda path: loaded.append(Path(path)) or path)
    monkeypatch.setattr(compiled, "_compile", lambda command, source, target: target.write_bytes(b"compiled"))
    build(SOURCE)
    assert loaded[-1].parent == home / "native"
    kept = loaded[-1]

    def planted() -> bool:
        build(SOURCE)
        return loaded[-1] == kept

    assert planted()  # the user's own is found again
    for path, mode in ((kept, 0o666), (kept.parent, 0o777), (kept.parent, 0o770), (home, 0o777)):
        before = path.stat().st_mode
        path.chmod(mode)
        assert not planted(), path
        path.chmod(before)
    if os.geteuid() == 0:
        for path in (kept, kept.parent):
            os.chown(path, 4321, -1)
            assert not planted(), path
            os.chown(path, 0, -1)
    assert planted()
    kept.rename(home / "elsewhere.so")
    kept.symlink_to(home / "elsewhere.so")
    assert not planted()


def test_the_name_of_compiled_code_follows_from_sources_flags_and_compiler(tmp_path: Path) -> None:
    def compiler(version: str) -> str:
        path = tmp_path / "cc"
        path.write_text(f"#!/bin/sh\necho {version}\n")
        path.chmod(0o755)
        return str(path)

    names = {compiled._name([compiler("1"), "-O3"], SOURCE), compiled._name([compiler("2"), "-O3"], SOURCE)}
    names.add(compiled._name([compiler("2"), "-O0"], SOURCE))
    changed = tmp_path / "csrc" / "clip.c"
    changed.parent.mkdir()
    changed.write_bytes(SOURCE.read_bytes() + b"\n")
    names.add(compiled._name([compiler("2"), "-O0"], changed))
    assert len(names) == 4
    assert all(name.startswith("clip-") for name in names)
