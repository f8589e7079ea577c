"""ESC-50, and ESC-10 as a part of it or in its own old folders of classes."""

from pathlib import Path

from featcache.datasets.hub import HubTable, labels_in
from featcache.datasets.listing import Listing
from featcache.datasets.root import AudioFiles, Root
from featcache.datasets.spec import DatasetSpec
from featcache.errors import InputError
from featcache.manifest import Clip
from featcache.manifest.table import read_table

FOLDERS = {
    "001 - Dog bark": "dog", "002 - Rain": "rain", "003 - Sea waves": "sea_waves",
    "004 - Baby cry": "crying_baby", "005 - Clock tick": "clock_tick", "006 - Person sneeze": "sneezing",
    "007 - Helicopter": "helicopter", "008 - Chainsaw": "chainsaw", "009 - Rooster": "rooster",
    "010 - Fire crackling": "crackling_fire",
}  # fmt: skip


def read_esc50(root: Root) -> Listing:
    """``meta/esc50.csv``, of today or of older branches."""
    return _from_table(root.find("meta/esc50.csv"), only_esc10=False)


def read_esc10(root: Root) -> Listing:
    """The folders of ESC-10, or its rows of ESC-50."""
    first = root.find("meta/esc50.csv", next(iter(FOLDERS)))
    return _from_table(first, only_esc10=True) if first.suffix else _from_folders(first.parent)


def _from_table(table: Path, *, only_esc10: bool) -> Listing:
    files = AudioFiles(table.parents[1] / "audio")
    classes: dict[int, str] = {}
    clips = []
    optional = ("category_name", "target")
    for line, row in read_table(table, ("filename", "fold", "category", "esc10"), optional)[0]:
        # Older lists have the number in "category" and the name in "category_name".
        name, number = row.get("category_name", row["category"]), row.get("target", row["category"])
        if not number.isdecimal():
            raise InputError(f"{table} line {line}: the number of class {name!r} is {number!r}")
        if only_esc10 and row["esc10"].casefold() != "true":
            continue
        classes[int(number)] = name
        clips.append(_clip(files.place(row["filename"]), row["filename"], name, row["fold"]))
    return Listing(clips=clips, classes=tuple(name for _, name in sorted(classes.items())))


def _from_folders(root: Path) -> Listing:
    clips = []
    for folder, name in FOLDERS.items():
        for file in AudioFiles(root / folder).files.values():
            fold = file.name.partition("-")[0]
            if not fold.isdecimal():
                raise InputError(
                    f"{file} does not begin with its fold; wanted 1-... to 5-..., as ESC-10 has it"
                )
            clips.append(_clip(file, f"{folder[:3]}/{file.name}", name, fold))
    return Listing(clips=clips, classes=tuple(FOLDERS.values()))


def _clip(path: Path, id: str, label: str, fold: str) -> Clip:
    """Both name files FOLD-SOURCE-...; clips of one source are in one fold."""
    source = Path(id).stem.split("-")[1:2]
    return Clip(id=id, path=path, labels=(label,), fold=fold, group=source[0] if source else None)


ESC50 = DatasetSpec(
    name="esc50",
    title="ESC-50",
    read=read_esc50,
    classes=50,
    sizes={"all": 2_000},
    multilabel=False,
    metric="accuracy",
    audio="44.1 kHz mono, 5 s",
    licence="CC BY-NC 3.0",
    origin="https://github.com/karolpiczak/ESC-50",
    layout="meta/esc50.csv, audio/",
    citation="Piczak, ESC, ACM MM 2015, https://doi.org/10.1145/2733373.2806390",
    hub=HubTable(
        columns=("category",), labels=labels_in("category"), id="filename", fold="fold", group="src_file"
    ),
    note="Five folds, for cross-validation; they keep the clips of one recording together.",
)
ESC10 = DatasetSpec(
    name="esc10",
    title="ESC-10",
    read=read_esc10,
    classes=10,
    sizes={"all": 400},
    multilabel=False,
    metric="accuracy",
    audio="44.1 kHz mono, about 5 s (its own files 3.6 to 7.3 s)",
    licence="CC BY 3.0",
    origin=(
        "ten classes of ESC-50; its own folders are in the history of https://github.com/karolpiczak/ESC-10"
    ),
    layout="as for esc50, or the folders 001 - Dog bark to 010 - Fire crackling",
    citation=ESC50.citation,
    hub=HubTable(
        columns=("category", "esc10"),
        labels=lambda row: (row["category"],) if row["esc10"] else None,
        id="filename",
        fold="fold",
        group="src_file",
    ),
    note=("Classes are called as in ESC-50 in both. Take clips of 5 s: its own files are cut and padded."),
)
