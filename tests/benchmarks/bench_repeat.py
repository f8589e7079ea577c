"""What a repeat of a finished extraction costs: ``python tests/benchmarks/bench_repeat.py [--full]``.

Makes short clips (2,000; with ``--full`` 100,000), extracts them once with ``logmel`` and repeats the
same call. The reference of the ratio is one ``os.stat`` of every file in the same run, which any
check of the files must pay.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from featcache.extraction.extract import extract
from featcache.manifest import Clip, Manifest
from featcache.manifest.digests import SETTLED

RATE, SECONDS = 16_000, 0.2


def make_clips(folder: Path, count: int) -> Manifest:
    """Noise of ``SECONDS`` each, left alone until their digests may be remembered."""
    random = np.random.default_rng(0)
    noise = random.standard_normal(RATE).astype(np.float32) * 0.1
    clips = []
    for index in range(count):
        path = folder / f"{index // 1000}" / f"{index}.wav"
        path.parent.mkdir(exist_ok=True)
        start = index % (RATE // 2)
        soundfile.write(path, noise[start : start + round(RATE * SECONDS)] * (1 + index / count), RATE)
        clips.append(Clip(id=str(index), path=path))
    time.sleep(1.5 * SETTLED)
    return Manifest(tuple(clips), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="100,000 clips")
    count = 100_000 if parser.parse_args().full else 2_000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FEATCACHE_HOME"] = f"{folder}/home"
        (Path(folder) / "audio").mkdir()
        manifest = make_clips(Path(folder) / "audio", count)
        settings = {
            "out": Path(folder) / "c.zarr",
            "encoder": "logmel",
            "clip_seconds": SECONDS,
            "batch_size": 256,
        }
        first = extract(manifest, **settings)
        began = time.perf_counter()
        for clip in manifest:
            os.stat(clip.path)
        stat = time.perf_counter() - began
        again = extract(manifest, **settings)
        assert (first.encoded, again.encoded, again.present) == (count, 0, count)
    per = again.seconds * 100_000 / count
    print("| clips | first run [s] | repeat [s] | stat of all files [s] | repeat / stat | per 100,000 [s] |")
    print("|---|---|---|---|---|---|")
    seconds = f"{first.seconds:.1f} | {again.seconds:.2f} | {stat:.2f}"
    print(f"| {count:,} | {seconds} | {again.seconds / stat:.1f} | {per:.1f} |")


if __name__ == "__main__":
    main()
