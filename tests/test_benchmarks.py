"""The benchmarks still run: the store's methods on a few clips, the others at their smallest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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


SCRIPT = """
import runpy, sys
sys.argv = {words!r}
sys.path[0] = "."
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(warm_process: Callable[..., Any], text: str) -> str:
    process = warm_process("python", "-c", text, cwd=BENCHMARKS)
    out, errors = process.communicate()
    assert process.returncode == 0, errors[-2000:]
    return str(out)


def test_every_way_of_reading_that_is_measured_reads_the_right_clips(
    tmp_path: Path, warm_process: Callable[..., Any]
) -> None:
    run(warm_process, STORE.replace("sys.argv[1]", repr(str(tmp_path))))


@pytest.mark.parametrize(
    "command",
    [
        "bench_match.py --repeats 1",
        "bench_frontend.py --repeats 1",
        "bench_extract.py --only ready",
        "bench_resample.py",
    ],
)
def test_a_benchmark_prints_its_table(command: str, warm_process: Callable[..., Any]) -> None:
    assert "|---|" in run(warm_process, SCRIPT.format(words=command.split()))
