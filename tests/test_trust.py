"""Damaged input in small: nothing shorter without a word, no traceback, little time and memory."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from featcache.errors import CacheError

SCRIPT = Path(__file__).parent / "benchmarks/bench_trust.py"


@pytest.fixture(scope="module")
def trust() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_trust", SCRIPT)
    sys.path.insert(0, str(SCRIPT.parent))  # the modules beside it
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_trust"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of a few clips, and of scores that do not exist
@pytest.mark.parametrize("name", ["manifests", "audio", "caches", "disks", "states", "hostile"])
def test_bad_input_is_read_or_refused(trust: ModuleType, tmp_path: Path, name: str) -> None:
    outcome = trust.run(name, trust.CHECKS[name][1], 0, tmp_path)
    assert outcome.words == []
    assert outcome.sound
    wanted = {"disks": "refused", "states": "read", "hostile": "refused"}.get(name, "read refused")
    assert all(outcome.endings[ending] for ending in wanted.split())


def test_every_check_is_run(trust: ModuleType) -> None:
    assert set(trust.CHECKS) == {"manifests", "audio", "caches", "disks", "states", "hostile"}


def test_the_script_itself_sees_what_must_not_happen(trust: ModuleType) -> None:
    assert trust._ending(lambda: "wrong") == "wrong"
    assert trust._ending(lambda: 1 / 0).startswith("traceback: ZeroDivisionError")


def test_what_probe_does_not_check_it_gets_wrong(trust: ModuleType, tmp_path: Path) -> None:
    """Without its checksums the same damage gives other scores: the cases above could fail."""
    cases = sys.modules["trust_cases"]
    cache = cases.make_cache(tmp_path / "a.zarr")
    wanted = cases.scores(cache, tmp_path / "sound")
    (file, *_) = (cache / "tokens/2").glob("c.*")
    raw = bytearray(file.read_bytes())
    raw[1:4000:2] = bytes(60 for _ in raw[1:4000:2])  # the upper bytes of float16: exponents
    file.write_bytes(raw)
    assert cases.scores(cache, tmp_path / "wrong", verify=False) != wanted
    with pytest.raises(CacheError, match=r"is damaged: its checksum is not the ledger's"):
        cases.scores(cache, tmp_path / "refused")
