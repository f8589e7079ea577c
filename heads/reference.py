"""Published numbers, to stand beside ours and never among them: each is its paper's own.

Test scores in per cent as printed, mAP for multi-label sets and accuracy for single-label ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from featcache.errors import unknown


@dataclass(frozen=True, kw_only=True)
class Published:
    """One number of a paper."""

    encoder: str  # as ENCODERS names it
    dataset: str
    head: str  # as HEADS names it
    value: float  # in 0..1
    source: str


_UNMUTE = "arXiv 2509.24901"
_ENCODERS = {
    "A-MAE": "audiomae", "ASiT": "asit", "Dasheng": "dasheng", "BEATs": "beats", "EAT": "eat",
    "SSLAM": "sslam",
}  # fmt: skip

# Table 2: encoder and head; as20k, fsd50k, desed, spass, urban.
_GENERAL = """
A-MAE linear 8.36 19.71 57.46 58.94 58.72
A-MAE mhca 17.09 45.17 83.57 79.24 82.49
A-MAE protobin 22.32 49.69 85.57 79.95 85.17
ASiT linear 18.35 39.57 72.92 68.80 77.53
ASiT mhca 18.72 42.28 79.50 75.76 79.93
ASiT protobin 20.96 46.70 81.74 74.69 82.28
Dasheng linear 20.98 38.08 68.39 66.89 69.61
Dasheng mhca 27.49 52.95 84.53 80.71 84.59
Dasheng protobin 29.94 57.31 86.14 80.93 86.55
BEATs linear 24.71 46.89 77.56 74.22 82.54
BEATs mhca 21.86 48.51 86.91 83.98 86.23
BEATs protobin 31.54 58.27 89.22 85.77 88.74
EAT linear 17.29 36.39 76.15 65.96 77.76
EAT mhca 26.11 51.06 86.06 83.95 86.43
EAT protobin 31.67 55.64 88.82 85.64 89.24
SSLAM linear 17.04 36.06 72.49 68.28 75.86
SSLAM mhca 24.45 51.48 85.44 83.45 86.45
SSLAM protobin 30.94 56.99 88.33 86.01 89.05
"""
_GENERAL_SETS = ("as20k", "fsd50k", "desed", "spass", "urban")

# All poolings of EAT; a cell that Table 2 has too is not repeated.
_EAT = """
as20k mlp 20.59 linearc 21.94 conv 19.50 linpre 26.49 ep 26.83 simpool 25.15 abmilp 19.91 proto 31.06
fsd50k mlp 44.82 linearc 38.36 conv 46.64 linpre 48.21 ep 51.29 simpool 49.38 abmilp 45.93 proto 56.07
urban mlp 81.58 linearc 78.45 conv 86.35 linpre 84.04 ep 85.40 simpool 83.58 abmilp 79.93 proto 89.11
"""

# Table 3, single-label controls, accuracy: linear, mhca, protobin.
_CONTROLS = """
sc-2 EAT 69.1 93.2 90.4
sc-2 SSLAM 64.8 93.8 91.9
esc50 EAT 75.33 89.83 86.83
esc50 SSLAM 74.2 89.0 84.7
esc50 BEATs 78.92 83.17 84.08
"""


def _unmute() -> Iterator[Published]:
    for line in _GENERAL.split("\n"):
        name, head, *values = line.split() or ("", "")
        for dataset, value in zip(_GENERAL_SETS, values, strict=False):
            yield _number(name, dataset, head, value, "Table 2")
    for line in _EAT.split("\n"):
        dataset, *pairs = line.split() or ("",)
        for head, value in zip(pairs[::2], pairs[1::2], strict=True):
            yield _number("EAT", dataset, head, value, "results of EAT")
    for line in _CONTROLS.split("\n"):
        dataset, name, *values = line.split() or ("", "")
        for head, value in zip(("linear", "mhca", "protobin"), values, strict=False):
            yield _number(name, dataset, head, value, "Table 3")


def _number(name: str, dataset: str, head: str, value: str, where: str) -> Published:
    source = f"{_UNMUTE}, {where}"
    return Published(
        encoder=_ENCODERS[name], dataset=dataset, head=head, value=float(value) / 100, source=source
    )


REFERENCES: dict[str, tuple[Published, ...]] = {"unmute": tuple(_unmute())}


def reference(name: str) -> tuple[Published, ...]:
    """The numbers of a paper.

    Raises:
        InputError: no such reference.

    >>> own = {(n.encoder, n.dataset, n.head): n.value for n in reference("unmute")}
    >>> round(100 * own["eat", "as20k", "protobin"], 2)
    31.67
    """
    if name not in REFERENCES:
        raise unknown("reference", name, list(REFERENCES))
    return REFERENCES[name]
