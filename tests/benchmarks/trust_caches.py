"""Damaged caches, full disks and damaged states, for ``bench_trust.py``: the scores, or one line."""

import random
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from trust_cases import Cases, damaged, files_of, judge, make_cache, scores

from featcache.cli.main import featcache
from featcache.errors import Interrupted, OutputError
from featcache.heads.report.compare import compare

LARGEST = 200_000  # [bytes] of a disk: more than any file of these probes
KINDS = ("flip", "cut", "empty", "zeros", "junk", "delete", "swap")
STORES: dict[str, dict[str, Any]] = {"float16": {}, "int8": {"dtype": "int8"}, "zstd": {"codec": "zstd"}}


def damaged_caches(folder: Path, count: int, dice: random.Random) -> Cases:
    """One file damaged, every kind as often; ``probe`` gives the scores of the sound cache or refuses."""
    sound = {name: make_cache(folder / f"{name}.zarr", **own) for name, own in STORES.items()}
    wanted: dict[str, list[Any]] = {}
    for index in range(count):
        name = dice.choice(list(STORES))
        if name not in wanted:
            wanted[name] = scores(sound[name], folder / "sound" / name)
        path = folder / f"{index}.zarr"
        shutil.copytree(sound[name], path)
        kinds: dict[str, list[Path]] = {}
        for file in files_of(path):
            parts = file.relative_to(path).parts
            kinds.setdefault(parts[0] + ("/zarr.json" if parts[-1] == "zarr.json" else ""), []).append(file)
        file = dice.choice(kinds[dice.choice(sorted(kinds))])
        kind = _damage(file, files_of(path), dice)
        yield (
            f"{name} {kind} {file.relative_to(path)}",
            lambda path=path, name=name: judge(scores(path, path / "out") == wanted[name]),
        )
        shutil.rmtree(path)


def _damage(file: Path, others: list[Path], dice: random.Random) -> str:
    kind = dice.choice(KINDS)
    if kind == "delete":
        file.unlink()
    elif kind == "swap":  # with one of equal length, if there is one: only its content tells them apart
        size, content = file.stat().st_size, file.read_bytes()
        same = [other for other in others if other.stat().st_size == size and other != file]
        other = dice.choice(same or [own for own in others if own != file])
        file.write_bytes(other.read_bytes())
        other.write_bytes(content)
    else:
        file.write_bytes(damaged(file.read_bytes(), dice, (kind,)))
    return kind


def full_disks(folder: Path, count: int, dice: random.Random) -> Cases:
    """The disk fills up after any number of bytes: one line, nothing half written, and the rerun is right."""
    cache = make_cache(folder / "a.zarr")
    options: list[dict[str, Any]] = [{"solved": False}, {"search": True, "trials": 2, "solved": False}]
    wanted = [scores(cache, folder / f"sound{number}", **own) for number, own in enumerate(options)]
    for index in range(count):
        out = folder / f"out{index}"
        size = dice.choice([dice.randrange(200), dice.randrange(4000), dice.randrange(LARGEST)])
        if index % 5 == 3:
            yield (
                f"compare {size}",
                lambda out=out, size=size: _full_compare(folder / "sound0", out, size % 300),
            )
        elif index % 15 == 4:
            yield f"demo {size}", lambda out=out, size=size: _full_demo(out, size)
        else:
            number = dice.randrange(2)

            def probe_case(out: Path = out, size: int = size, number: int = number) -> str:
                ending = _until_full(size, lambda: scores(cache, out, **options[number]))
                again = scores(cache, out, **options[number])
                return ending if again == wanted[number] and not _halves(out) else "wrong"

            yield f"probe {options[number]} {size}", probe_case


def _until_full(size: int, work: Any) -> str:
    with full_after(size):
        try:
            work()
        except OutputError as error:
            return "refused" if "\n" not in str(error) else "traceback: several lines"
    return "read"


def _full_compare(results: Path, out: Path, size: int) -> str:
    ending = _until_full(size, lambda: compare(results, out, draws=0))
    return "wrong" if _halves(out) else ending


def _full_demo(out: Path, size: int) -> str:
    with full_after(size):
        done = CliRunner().invoke(featcache, ["demo", "--clips", "40", "--out", str(out)])
    if not isinstance(done.exception, SystemExit | None):
        raise done.exception
    return "wrong" if _halves(out) or done.output.count("Error") != 1 else "refused"


def _halves(out: Path) -> bool:
    return any(path.name.endswith((".partial", ".tmp", ".lock")) for path in files_of(out))


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: the kernel's own error, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def damaged_states(folder: Path, count: int, dice: random.Random) -> Cases:
    """A stopped probe's state is damaged or another run's: the rerun gives the scores of an unbroken one."""
    cache = make_cache(folder / "a.zarr")
    options: list[dict[str, Any]] = [
        {"solved": False, "seed": 0},
        {"solved": False, "seed": 1},
        {"search": True, "trials": 2, "solved": False},
    ]
    wanted = [scores(cache, folder / f"sound{number}", **own) for number, own in enumerate(options)]
    for index in range(count):
        out, number = folder / f"out{index}", dice.randrange(3)
        _stop_after(cache, out, dice.randint(1, 2), options[number])
        (state,) = (out / "state").glob("*.pt")
        kind = dice.choice(["flip", "cut", "empty", "zeros", "junk", "other run"])
        if kind == "other run":
            other = folder / f"other{index}"
            _stop_after(cache, other, 2, options[(number + 1) % 2])
            shutil.copy(next((other / "state").glob("*.pt")), state)
        else:
            state.write_bytes(damaged(state.read_bytes(), dice, (kind,)))
        yield (
            f"{kind} {options[number]}",
            lambda out=out, number=number: judge(scores(cache, out, **options[number]) == wanted[number]),
        )


def _stop_after(cache: Path, out: Path, epochs: int, options: dict[str, Any]) -> None:
    def watch(epoch: int, _epochs: int, _outcomes: Any) -> None:
        if epoch == epochs:
            raise KeyboardInterrupt

    with suppress(Interrupted):
        scores(cache, out, watch=watch, **options)
