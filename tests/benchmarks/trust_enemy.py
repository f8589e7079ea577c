"""Caches and saved heads made by an enemy, for ``bench_trust.py``: nothing outside them is touched."""

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from trust_cases import Cases, files_of

from featcache.cache.format.durable import file_crc32c
from featcache.cli.main import featcache
from featcache.errors import FeatcacheError
from featcache.heads import build_head, load, save

UP = ("../outside/file", "../../outside/file", "tokens/../../outside/file")
LINKED = ("lock", "windows.csv", "clips.csv", "failed.jsonl", "ids/1.json", "out")  # beside what is there
EVIL = """
import pathlib
pathlib.Path({target!r}).write_text('ran')
from featcache.heads import Linear as Evil
"""


def hostile(folder: Path, count: int, dice: random.Random) -> Cases:
    """Every command on each; "wrong" is any change outside, "refused" that a command said no."""
    for index in range(count):
        place = folder / str(index)
        outside = place / "outside"
        outside.mkdir(parents=True)
        (outside / "file").write_text('{"precious": 1}\n')
        (outside / "labels.csv").write_text("path,labels\na.wav,x\n")
        if index % 3 == 2:
            what, use = _hostile_head(place, dice)
        else:
            what, use = _hostile_cache(place, dice)
        yield what, lambda use=use, outside=outside: _unharmed(outside, use)
        shutil.rmtree(place)


def _unharmed(outside: Path, use: Callable[[], str]) -> str:
    before = _state(outside)
    ending = use()
    return ending if _state(outside) == before else "wrong"


def _state(folder: Path) -> dict[str, Any]:
    """Names, contents and times of everything below a folder."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted([folder, *folder.rglob("*")])
    }


def _hostile_cache(place: Path, dice: random.Random) -> tuple[str, Callable[[], str]]:
    manifest, larger = _clips(place)
    cache = place / "a.zarr"
    extract = ["extract", "--clip-seconds", "0.5", "--shard-clips", "4", "--out", str(cache)]
    _run(*extract, str(manifest))
    attack = dice.choice([_link, _link, _attribute, _ledger, _record, _ids, _pipe])
    what = f"{attack.__name__[1:]} {attack(cache, dice)}"

    def use() -> str:
        here = [str(cache)]
        head = ["--head", "linear", "--epochs", "1", "--device", "cpu"]
        codes = [
            _run("cache", "ls", str(place)),
            _run("cache", "info", *here),
            _run("cache", "verify", *here),
            _run("probe", *here, *head, "--out", str(place / "results")),
            _run("probe", *here, *head, "--out", str(place / "more"), "--manifest", str(manifest)),
            _run("cache", "convert", *here, str(place / "b.zarr"), "--dtype", "int8"),
            _run(*extract, str(larger)),
            _run("cache", "verify", *here, "--repair"),
            _run(*extract, str(larger)),
            _run("cache", "rm", "--yes", *here),
        ]
        return "refused" if any(codes) else "read"

    return what, use


def _run(*words: str) -> int:
    """The exit code of a command; a traceback goes on up."""
    done = CliRunner().invoke(featcache, list(words))
    if not isinstance(done.exception, SystemExit | None):
        raise done.exception
    return done.exit_code


def _clips(place: Path) -> tuple[Path, Path]:
    lines = ["path,labels,split"]
    for index in range(12):
        noise = np.random.default_rng(index).standard_normal(8000).astype(np.float32) / 10
        soundfile.write(place / f"{index}.wav", noise, 16_000)
        lines.append(f"{index}.wav,{'ab'[index % 2]},{('train', 'valid', 'test')[index // 2 % 3]}")
    (place / "larger.csv").write_text("\n".join(lines) + "\n")
    (place / "clips.csv").write_text("\n".join(lines[:9]) + "\n")
    return place / "clips.csv", place / "larger.csv"


def _link(cache: Path, dice: random.Random) -> str:
    there = sorted(str(path.relative_to(cache)) for path in cache.rglob("*"))
    name = dice.choice([*there, *LINKED]) + dice.choice(["", "", ".partial"])
    target = dice.choice(["file", "new", ".", "labels.csv"])
    path = cache / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        path.symlink_to(cache.parent / "outside" / target)
    return f"{name} -> {target}"


def _attribute(cache: Path, dice: random.Random) -> str:
    document = json.loads((cache / "zarr.json").read_text())
    own = document["attributes"]["featcache"]
    field, value = dice.choice([
        ("layers", [dice.choice([*UP, "/tmp", 10**12, -1, None, ["x"]])]),
        ("dim", 10**9), ("num_tokens", 2**40),
        ("grid", [2**20, 2**20]), ("parent", {"path": UP[0]}), ("fingerprint", {"encoder": UP[1]}),
        ("fingerprint", {"encoder": "\x1b]0;x\x07"}), ("clips_expected", 10**30),
        ("fingerprint", {"encoder": "x.py:X"}),
        ("store", {"dtype": "float16", "codec": UP[0], "shard_clips": 4}),
        ("store", {"dtype": "float16", "codec": None, "shard_clips": 2**24}),
    ])  # fmt: skip
    own[field] = value
    (cache / "zarr.json").write_text(json.dumps(document))
    return f"{field} {value!r}"


def _ledger(cache: Path, dice: random.Random) -> str:
    path = dice.choice(files_of(cache / "ledger"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    entry = dice.choice(lines)
    kind = dice.choice(["file", "more", "shard", "clips", "name"])
    if kind == "file":
        entry["files"][dice.choice(UP)] = entry["files"].pop(dice.choice(list(entry["files"])))
    elif kind == "more":
        entry["files"][dice.choice(UP)] = {"bytes": 16, "crc32c": "00000000"}
    elif kind == "shard":
        entry["shard"] = dice.choice([2**47, "../../outside/file", -1, 2**70])
    elif kind == "clips":
        entry["clips"] = dice.choice([2**40, 0, True, 3])
    else:
        entry["files"] = {
            name.replace("c.0", "c./../../../outside/file"): own for name, own in entry["files"].items()
        }
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return kind


def _record(cache: Path, dice: random.Random) -> str:
    name = dice.choice(["runs.jsonl", "failed.jsonl"])
    outside = cache.parent / "outside"
    line = dice.choice([
        {"manifest": "/dev/zero"}, {"manifest": str(outside / "labels.csv")}, {"manifest": "/etc/shadow"},
        {"manifest": str(outside / "file"), "manifest_crc32c": "00000000"},
        {"manifest": "..", "manifest_crc32c": 3},
        {"id": UP[0], "reason": "\x1b[2J"}, {"id": 3}, {"manifest": "a\0b.csv"}, {"manifest": str(outside)},
    ])  # fmt: skip
    (cache / name).write_text(json.dumps(line) + "\n")
    return f"{name} {line}"


def _ids(cache: Path, dice: random.Random) -> str:
    """Ids that are paths, and a ledger that agrees."""
    evil = dice.choice([*UP, "/etc/passwd", "\x1b[2J", "a\0b"])
    (cache / "ids/0.json").write_text(json.dumps([f"{evil}{index}" for index in range(4)]))
    length, checksum = file_crc32c(cache / "ids/0.json")
    for path in files_of(cache / "ledger"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for entry in lines:
            if "ids/0.json" in entry["files"]:
                entry["files"]["ids/0.json"] = {"bytes": length, "crc32c": checksum}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return repr(evil)


def _pipe(cache: Path, dice: random.Random) -> str:
    path = dice.choice(files_of(cache))
    path.unlink()
    os.mkfifo(path)
    return str(path.relative_to(cache))


def _hostile_head(place: Path, dice: random.Random) -> tuple[str, Callable[[], str]]:
    (place / "evil.py").write_text(EVIL.format(target=str(place / "outside/ran")))
    path = place / "head.safetensors"
    save(build_head(dice.choice(["linear", "protobin", "mhca"]), 16, 3, grid=(2, 6)), path)
    field, value = dice.choice([
        ("name", f"{place}/evil.py:Evil"), ("name", "evil:Evil"), ("name", "../evil.py:Evil"), ("dim", 10**9),
        ("num_classes", 10**9), ("dim", 2**62), ("grid", [10**6, 10**6]), ("per_class", 10**9),
        ("name", "os:system"),
        ("num_heads", 2**40), ("__class__", "x"), ("dim", "../outside"), ("dim", None), ("norm", ["x"]),
    ])  # fmt: skip
    state = load_file(path)
    head = {"name": "linear", "dim": 16, "num_classes": 3, **_words(path), field: value}
    if dice.random() < 0.3:
        path.write_bytes(pickle.dumps(_Opens(place / "outside/ran")))
    else:
        save_file(
            state, path, metadata={"head": json.dumps(head), "config": dice.choice(["{}", "[]", '{"a": 1}'])}
        )

    def use() -> str:
        here = os.getcwd()
        os.chdir(place)  # where a name of a file would be found
        try:
            load(path)
        except FeatcacheError:
            return "refused"
        finally:
            os.chdir(here)
        return "read"

    return f"head {field} {value!r}", use


def _words(path: Path) -> dict[str, Any]:
    from featcache.heads.head_file import HeadFile

    file = HeadFile(path)
    return {"name": file.name, **file.sizes, **file.options}


class _Opens:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)
