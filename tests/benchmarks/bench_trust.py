"""What bad input does: ``python tests/benchmarks/bench_trust.py [--full] [--seed 0] [--only audio …]``.

Seeded damage to manifests, audio files, caches and the states of stopped probes, disks that fill up, and
caches and heads made by an enemy. Every case ends in one of four ways: read (the numbers are those of
sound input), refused in one line, silently wrong (other numbers, fewer clips or samples, a file half written,
anything changed outside), or a traceback. The last two must not happen, nor may one take 30 s or the process
2 GB. A further check is a function and a line in ``CHECKS``.
"""

import argparse
import faulthandler
import logging
import random
import resource
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trust_caches import damaged_caches, damaged_states, full_disks
from trust_cases import Cases
from trust_enemy import hostile
from trust_files import damaged_audio, damaged_manifests

from featcache.errors import FeatcacheError

SLOWEST, LARGEST = 30.0, 2 << 30  # [s] of one input, [bytes] of the process
ENDINGS = ("read", "refused", "wrong", "traceback")


@dataclass
class Outcome:
    """How the inputs of one check ended."""

    endings: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # [s]
    words: list[str] = field(default_factory=list)  # of what must not happen

    @property
    def sound(self) -> bool:
        """Whether nothing happened that must not."""
        return not self.words and self.slowest < SLOWEST


# How the cases are made, and how many there are: small, full.
CHECKS: dict[str, tuple[Callable[[Path, int, random.Random], Cases], int, int]] = {
    "manifests": (damaged_manifests, 40, 400),
    "audio": (damaged_audio, 150, 1500),
    "caches": (damaged_caches, 3, 328),
    "disks": (full_disks, 5, 90),
    "states": (damaged_states, 3, 60),
    "hostile": (hostile, 6, 60),
}


def run(name: str, count: int, seed: int, folder: Path) -> Outcome:
    """One check of ``count`` inputs."""
    outcome = Outcome()
    make, _, _ = CHECKS[name]
    for what, case in make(folder, count, random.Random(seed)):
        began = time.perf_counter()
        ending = _ending(case)
        outcome.endings[ending.split(":")[0]] += 1
        outcome.slowest = max(outcome.slowest, time.perf_counter() - began)
        if ending not in ("read", "refused"):
            outcome.words.append(f"{what}: {ending}")
    return outcome


def _ending(case: Callable[[], str]) -> str:
    try:
        return case()
    except FeatcacheError as error:
        return "refused" if "\n" not in str(error) else "traceback: several lines"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {error}"


def peak_memory() -> int:
    """[bytes] this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="as many as in docs/results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(CHECKS), choices=list(CHECKS))
    arguments = parser.parse_args()
    faulthandler.dump_traceback_later(3600, exit=True)  # nothing may wait for ever
    logging.disable()  # a state that is not believed is said
    warnings.simplefilter("ignore")  # of a few clips, and of scores that do not exist
    print(f"| check | inputs | {' | '.join(ENDINGS)} | slowest [s] |\n|---|{'---|' * (len(ENDINGS) + 2)}")
    sound = True
    for name in arguments.only:
        _, small, full = CHECKS[name]
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(name, full if arguments.full else small, arguments.seed, Path(folder))
        counts = " | ".join(str(outcome.endings[ending]) for ending in ENDINGS)
        print(f"| {name} | {outcome.endings.total()} | {counts} | {outcome.slowest:.2f} |")
        print("\n".join(outcome.words), end="\n" if outcome.words else "", flush=True)
        sound &= outcome.sound
    print(f"peak memory {peak_memory() / 1e9:.2f} GB")
    raise SystemExit(0 if sound and peak_memory() < LARGEST else 1)


if __name__ == "__main__":
    main()
