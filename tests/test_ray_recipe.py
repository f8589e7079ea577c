"""The recipe for Ray Data in docs/scaling.md, where Ray is installed."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featcache.cache import TokenCache
from featcache.extraction.extract import extract

PAGE = Path(__file__).parents[1] / "docs/scaling.md"
HERE = (
    ("WRITERS = 8", "WRITERS = 2"),
    ("num_cpus=8, num_gpus=1", "num_cpus=1"),
    ('encoder="eat"', 'encoder="logmel", clip_seconds=1, shard_clips=4'),
    ('dtype="bf16"', 'dtype="fp32"'),
)


def test_the_recipe_fills_the_cache_that_one_process_would(
    make_manifest: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")
    manifest = make_manifest(10)
    extract(manifest, out=tmp_path / "whole.zarr", encoder="logmel", clip_seconds=1, shard_clips=4)
    (recipe,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    for old, new in (*HERE, ("/shared/", f"{tmp_path}/"), ("eat.zarr", "ray.zarr")):
        assert old in recipe
        recipe = recipe.replace(old, new)
    done = subprocess.run([sys.executable, "-c", recipe], text=True, capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'failed': 0" in done.stdout
    whole, found = TokenCache.open(tmp_path / "whole.zarr"), TokenCache.open(tmp_path / "ray.zarr")
    assert list(found.ids) == list(whole.ids)
    for row in range(10):
        np.testing.assert_array_equal(found[row], whole[row])
