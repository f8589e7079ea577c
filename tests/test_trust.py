"""Damaged input in small: nothing shorter without a word, no traceback, little time and memory."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent / "benchmarks/bench_trust.py"


@pytest.fixture(scope="module")
def trust() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_trust", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_trust"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["manifests", "audio"])
def test_damaged_input_is_read_or_refused(trust: ModuleType, tmp_path: Path, name: str) -> None:
    outcome = trust.run(name, trust.CHECKS[name][1], 0, tmp_path)
    assert outcome.words == []
    assert outcome.sound
    assert min(outcome.endings["read"], outcome.endings["refused"]) > 0


def test_every_check_is_run(trust: ModuleType) -> None:
    assert set(trust.CHECKS) >= {"manifests", "audio"}


def test_the_script_itself_sees_what_must_not_happen(trust: ModuleType) -> None:
    assert trust._ending(lambda: True) == "shorter"
    assert trust._ending(lambda: 1 / 0).startswith("traceback: ZeroDivisionError")
