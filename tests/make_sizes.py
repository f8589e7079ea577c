"""docs/sizes.md: bytes of the benchmarks' caches, from the tables of encoders and of data sets."""

from dataclasses import replace

from featcache.cache.format.layout import CacheLayout
from featcache.datasets.table import DATASETS
from featcache.encoders import ENCODERS, EncoderSpec

# The fourteen sets of the study template (the paper's abstract counts thirteen), and all of AudioSet.
SETS = (
    "as20k", "fsd50k", "idmt-desed-fl", "spass", "urban-sed", "esc50", "speechcommands-12", "birdset-hsn",
    "birdset-pow", "birdset-per", "birdset-nes", "birdset-sne", "birdset-uhh", "birdset-nbp", "as2m",
)  # fmt: skip
COLUMNS = ("logmel", "dasheng", "birdmae", "beats", "audiomae", "ast", "eat-large")
DTYPES = ("float32", "float16", "int8", "int4")
SIZES = """# How large the caches are

Made from the tables of encoders and data sets by `python tests/make_docs.py`; a test fails when it is stale.

Bytes follow from counts alone: every clip takes the same rows, whatever its length. Below, each encoder
has its authors' clip length, as `extract` builds it unless `--clip-seconds` is given; at half of it a
clip takes half. `--plan` says it for your clips.

## A clip, one layer

| encoder | clip | tokens x width | {dtypes} |
|---|---|---|{rules}|
{clips}

## A benchmark, one layer, float16

All clips that its owners published, train to test. int8 takes half, int4 a quarter, float32 twice;
`--layers all` times the layers. `eat` and `sslam` take what `audiomae` takes. Few-shot draws of
BirdSet take less: 64 clips a class, and their variants.

| data set | clips | {names} |
|---|---|{columns}|
{sets}
"""


def render_sizes() -> str:
    """docs/sizes.md"""
    clips = [
        f"| `{spec.name}` | {spec.clip_seconds:g} s | {spec.grid[0] * spec.grid[1]} x {spec.dim} | "
        + " | ".join(size(clip_bytes(spec, dtype)) for dtype in DTYPES)
        + " |"
        for spec in ENCODERS.values()
    ]
    sets = []
    for name in SETS:
        count = sum(DATASETS[name].sizes.values())
        each = [size(count * clip_bytes(ENCODERS[encoder], "float16")) for encoder in COLUMNS]
        sets.append(f"| `{name}` | {count:,} | {' | '.join(each)} |")
    return SIZES.format(
        dtypes=" | ".join(DTYPES), rules="|".join("---" for _ in DTYPES), clips="\n".join(clips),
        names=" | ".join(f"`{name}`" for name in COLUMNS), columns="|".join("---" for _ in COLUMNS),
        sets="\n".join(sets),
    )  # fmt: skip


def clip_bytes(spec: EncoderSpec, dtype: str) -> int:
    """[bytes] of one clip and layer, with its vectors and key."""
    layout = CacheLayout(
        fingerprint={}, layers=(spec.depth,), num_tokens=spec.grid[0] * spec.grid[1], dim=spec.dim,
        grid=spec.grid, has_cls=spec.has_cls,
    )  # fmt: skip
    return replace(layout, dtype=dtype).clip_bytes


def size(count: float) -> str:
    """Bytes in thousands, three digits."""
    power = next(power for power in (1, 2, 3, 4) if count < 999.5 * 1000**power or power == 4)
    return f"{count / 1000**power:.3g} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
