"""Threads: as many as asked for, given back afterwards, and none that spin beside others' work."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from featcache.audio import decode_ahead as decoding
from featcache.errors import InputError
from featcache.extraction.extract import extract
from featcache.extraction.runner import Runner
from featcache.heads.probing.probe import probe

WAITING = """
import os
before = dict(os.environ)
import featcache, featcache.cli.main
from featcache.heads.training.stack import Stack
import torch
assert dict(os.environ) == before
threads = torch.get_num_threads()
from featcache.cli.main import main
try:
    main()
except SystemExit:
    pass
print(os.environ.get("OMP_WAIT_POLICY"), torch.get_num_threads() == threads)
"""


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_only_the_command_says_how_threads_wait_and_only_where_nobody_else_has(
    warm_process: Callable[..., Any],
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", WAITING, "--version"]
    done = subprocess.run(command, cwd="/", env=environment, text=True, capture_output=True)
    assert done.stdout.splitlines()[-1] == "PASSIVE True", done.stderr
    script = f"import sys; sys.argv = ['featcache', '--version']\n{WAITING}"
    process = warm_process("python", "-c", script, env=environment | {"OMP_WAIT_POLICY": "ACTIVE"})
    said, errors = process.communicate()
    assert said.splitlines()[-1] == "ACTIVE True", errors


def test_a_probe_takes_the_threads_it_is_given_and_gives_them_back(
    make_tokens: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    torch.set_num_threads(2)
    seen: list[int] = []

    def watch(epoch: int, epochs: int, outcomes: Sequence[Any]) -> None:
        seen.append(torch.get_num_threads())

    made = make_tokens()
    for threads, wanted in ((3, 3), (None, 2)):
        seen.clear()
        (result,) = probe(
            *made, heads="protobin", out=tmp_path / str(threads), threads=threads, epochs=2, seeds=1,
            solved=False, watch=watch,
        )  # fmt: skip
        assert set(seen) == {wanted}
        assert f"{wanted} threads" in result["device"] or torch.cuda.is_available()
        assert torch.get_num_threads() == 2
    with pytest.raises(InputError, match="threads"):
        probe(*made, heads="linear", out=tmp_path, threads=0)


def test_an_extraction_decodes_with_one_thread_each_and_encodes_with_its_own(
    make_manifest: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: set[int] = set()
    encoded: set[int] = set()
    load, encode = decoding.decode_clip, Runner.encode

    def spy_load(*words: Any, **options: Any) -> Any:
        decoded.add(torch.get_num_threads())
        return load(*words, **options)

    def spy_encode(self: Runner, features: Any) -> Any:
        encoded.add(torch.get_num_threads())
        return encode(self, features)

    monkeypatch.setattr(decoding, "decode_clip", spy_load)
    monkeypatch.setattr(Runner, "encode", spy_encode)
    torch.set_num_threads(2)
    extract(make_manifest(6), out=tmp_path / "a.zarr", clip_seconds=1.0, workers=2, threads=3)
    assert (decoded, encoded) == ({1}, {3})
    assert torch.get_num_threads() == 2
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]
