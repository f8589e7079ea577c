"""The benchmarks still run: the store's methods on a few clips, the others at their smallest."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
STORE = """
import sys
from pathlib import Path
import numpy as np
from store_methods import COLD, READERS, Data
data = Data(Path(sys.argv[1]), 64, 8, 16)
for build in {**READERS, **COLD}.values():
    build(data)([np.arange(64)[::-1].copy()])  # data.check stops where the clips are wrong
"""


def run(*command: str | Path) -> str:
    done = subprocess.run([sys.executable, *command], cwd=BENCHMARKS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_way_of_reading_that_is_measured_reads_the_right_clips(tmp_path: Path) -> None:
    run("-c", STORE, tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "bench_match.py --repeats 1",
        "bench_frontend.py --repeats 1",
        "bench_extract.py --only ready",
    ],
)
def test_a_benchmark_prints_its_table(command: str) -> None:
    assert "|---|" in run(*command.split())
