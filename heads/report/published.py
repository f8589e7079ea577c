"""Published numbers, to stand beside ours and never among them: each is its paper's own.

They stand in CSV files beside this one: test scores in per cent as printed, mAP for multi-label sets
and accuracy for single-label ones.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import unknown

MARK = "†"  # a number of a paper, not ours
FILES = {"unmute": Path(__file__).with_name("unmute.csv")}


@dataclass(frozen=True, kw_only=True)
class Published:
    """One number of a paper."""

    encoder: str  # as ENCODERS names it
    dataset: str
    head: str  # as HEADS names it
    value: float  # in 0..1
    source: str


def published(name: str) -> list[Published]:
    """The numbers of a paper.

    Raises:
        InputError: no such reference.

    >>> own = {(n.encoder, n.dataset, n.head): n.value for n in published("unmute")}
    >>> round(100 * own["eat", "as20k", "protobin"], 2)
    31.67
    """
    if name not in FILES:
        raise unknown("reference", name, list(FILES), options=("reference",))
    with FILES[name].open(encoding="utf-8", newline="") as file:
        return [
            Published(
                encoder=row["encoder"],
                dataset=row["dataset"],
                head=row["head"],
                value=float(row["percent"]) / 100,
                source=row["source"],
            )
            for row in csv.DictReader(file)
        ]
