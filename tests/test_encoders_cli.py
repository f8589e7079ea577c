"""What ``featcache encoders`` says of an encoder before anything of it is fetched."""

import pytest
from click.testing import CliRunner

from featcache.cache import CacheLayout
from featcache.cli.main import featcache
from featcache.encoders import ENCODERS, encoder_spec


@pytest.mark.parametrize("name", ENCODERS)
def test_the_disk_that_it_says_is_what_a_cache_takes(name: str) -> None:
    spec = encoder_spec(name)
    said = CliRunner().invoke(featcache, ["encoders", name]).stdout
    for dtype in ("float16", "int8", "int4"):
        layout = CacheLayout(
            fingerprint={}, layers=(1,), num_tokens=spec.grid[0] * spec.grid[1], dim=spec.dim, grid=spec.grid,
            has_cls=spec.has_cls, dtype=dtype,
        )  # fmt: skip
        size = sum(own.row_bytes for own in layout.arrays() if own.name.startswith(("tokens", "scale")))
        assert f"{dtype} {size / 1e3:,.0f} kB" in said


def test_a_timm_model_is_not_said_to_need_no_weights() -> None:
    said = CliRunner().invoke(featcache, ["encoders", "timm:vit_tiny_patch16_224"]).stdout
    assert "weights      timm's own, fetched from the Hugging Face Hub; or give --weights PATH" in said
