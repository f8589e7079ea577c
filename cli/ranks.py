"""An extraction on all GPUs of this machine: a process for each, one bar for all."""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, Popen
from time import sleep
from typing import TYPE_CHECKING, Any, TextIO

import click
from tqdm import tqdm

from featcache.cli.submit import again
from featcache.errors import FeatcacheError, InputError, Interrupted

if TYPE_CHECKING:
    from featcache.extraction.result import Extraction

PAUSE = 1.0  # [s] between two looks at what is finished
_OWN = ("gpus", "as_json")  # parameters that are not for the processes
_Lines = tuple[set[str], threading.Lock]  # that some process has said


def extract_on_gpus(context: click.Context) -> "Extraction":
    """Run the ``extract`` command of ``context`` as one process a GPU; what all of them did.

    Raises:
        InputError: as `gpus_wanted`.
        FeatcacheError: a process failed; the others went on.
        Interrupted: Ctrl-C; what is encoded is kept.
    """
    given = context.params
    count = gpus_wanted(given["gpus"], given)
    words = [*again(context, _OWN), "--json"]
    words += [] if given["takeover"] else ["--takeover"]  # they start together, so none waits for its turn
    out = str(given["out"])
    return together(run(words, count, None if "://" in out else Path(out)))


def gpus_wanted(gpus: str, options: Mapping[str, Any]) -> int:
    """How many: a number, or all.

    Args:
        options: the others of ``extract``

    Raises:
        InputError: there are not so many GPUs, or an option is for one process alone.
    """
    for name, said in (("writer", "--writer"), ("profile", "--profile")):
        if options[name]:
            raise InputError(f"--gpus starts several processes, and {said} is for one; leave one of them out")
    if options["device"] != "auto":
        raise InputError("--gpus gives each process a GPU; leave --device out")
    here = gpus_here()
    wanted = here if gpus == "all" else int(gpus)
    if not 0 < wanted <= here:
        raise InputError(
            f"--gpus {gpus}: this machine has {here or 'no'} GPU{'s' if here > 1 else ''} for torch; "
            + (f"ask for {here} or fewer" if here else "leave --gpus out")
        )
    return wanted


def gpus_here() -> int:
    """How many GPUs this process may use."""
    import torch

    return torch.cuda.device_count()


class Rank:
    """One of the processes; it gets its number as from torchrun.

    What it says on standard error is passed on, but for what another has said.
    """

    def __init__(self, words: Sequence[str], rank: int, count: int, said: _Lines) -> None:
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        # In a session of its own: Ctrl-C reaches it through this process, once.
        self.process = Popen(
            [sys.executable, "-m", "featcache.cli", *words], stdout=PIPE, stderr=PIPE,
            text=True, start_new_session=True, env={**os.environ, **{key: str(n) for key, n in own.items()}},
        )  # fmt: skip
        self._output = ""
        self._said = said
        self._threads = [
            threading.Thread(target=work, args=(stream,), daemon=True)
            for work, stream in ((self._keep, self.process.stdout), (self._pass_on, self.process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    def wait(self) -> int:
        """Its exit code, once it has ended and everything that it said has been read."""
        code = self.process.wait()
        for thread in self._threads:
            thread.join()
        return code

    @property
    def answer(self) -> dict[str, Any] | None:
        """What it did; None where it failed."""
        return json.loads(self._output) if self.wait() in (0, 2) and self._output.strip() else None

    def _keep(self, stream: TextIO) -> None:
        with stream:
            self._output = stream.read()

    def _pass_on(self, stream: TextIO) -> None:
        lines, lock = self._said
        with stream:
            for line in stream:
                with lock:
                    if line not in lines:
                        lines.add(line)
                        tqdm.write(line.rstrip("\n"), file=sys.stderr)


def run(words: Sequence[str], count: int, cache: Path | None) -> list[dict[str, Any]]:
    """Run the command in so many processes; what each did, as ``--json`` says it.

    Args:
        cache: whose finished shards move the bar
    """
    said: _Lines = (set(), threading.Lock())
    ranks = [Rank(words, number, count, said) for number in range(count)]
    try:
        with tqdm(unit="clip", desc=f"extract, {count} processes", disable=None) as bar:
            while any(rank.process.poll() is None for rank in ranks):
                if cache is not None:
                    _show(bar, cache)
                sleep(PAUSE)
    except KeyboardInterrupt:
        for rank in ranks:
            if rank.process.poll() is None:
                rank.process.send_signal(signal.SIGTERM)  # it keeps the batches that are encoded
        for rank in ranks:
            rank.wait()
        raise Interrupted("stopped; what was encoded is kept: run the same command again to go on") from None
    codes, answers = [rank.wait() for rank in ranks], [rank.answer for rank in ranks]
    if set(codes) == {InputError.exit_code} and not any(answers):
        click.get_current_context().exit(InputError.exit_code)  # they have said why
    if failed := sum(answer is None for answer in answers):
        raise FeatcacheError(
            f"{failed} of {count} processes failed (exit codes {', '.join(map(str, codes))}); what was "
            "finished is kept, and the same command goes on"
        )
    return [answer for answer in answers if answer is not None]


def _show(bar: "tqdm[Any]", cache: Path) -> None:
    """Move the bar to what is finished by now."""
    from featcache.cache.survey import describe

    try:
        found = describe(cache)
    except FeatcacheError:  # not there yet
        return
    if bar.total is None:
        bar.initial = found["clips"]
    bar.total = found["clips_expected"]
    bar.n = found["clips"]
    bar.refresh()


def together(answers: Sequence[Mapping[str, Any]]) -> "Extraction":
    """What several processes did, as if it had been one.

    A shard that two of them took over at once was encoded twice, and counts once.
    """
    from featcache.extraction.result import Extraction
    from featcache.extraction.stages import Stages

    first, longest = answers[0], max(answers, key=lambda own: own["seconds"])
    failed = {name: reason for own in answers for name, reason in own["failed"].items()}
    encoded, reused = (sum(own[name] for own in answers) for name in ("encoded", "reused"))
    encoded = min(encoded, first["clips"] - reused - len(failed))
    return Extraction(
        cache=Path(first["cache"]), manifest=Path(first["manifest"]), clips=first["clips"], encoded=encoded,
        reused=reused, present=max(0, first["clips"] - encoded - reused - len(failed)), failed=failed,
        canaries=first["canaries"], cut=sum(own["cut"] for own in answers),
        cut_median=max(own["cut_median"] for own in answers),
        cut_largest=max(own["cut_largest"] for own in answers),
        num_bytes=max(own["num_bytes"] for own in answers), seconds=longest["seconds"], writer="all",
        address=first["address"],
        stages=Stages(**longest["stages"]) if longest["stages"] else None,
        complete=any(own["complete"] for own in answers),
    )  # fmt: skip
