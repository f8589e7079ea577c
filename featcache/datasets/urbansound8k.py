"""UrbanSound8K: excerpts of field recordings in ten folds."""

from featcache.datasets.listing import Listing
from featcache.datasets.root import AudioFiles, Root
from featcache.datasets.spec import DatasetSpec
from featcache.manifest import Clip
from featcache.manifest.table import read_table


def read(root: Root) -> Listing:
    """``metadata/UrbanSound8K.csv``."""
    table = root.find("metadata/UrbanSound8K.csv")
    files = AudioFiles(table.parents[1] / "audio")
    rows = read_table(table, ("slice_file_name", "fsID", "fold", "classID", "class"))[0]
    classes = {row["classID"]: row["class"] for _, row in rows}
    clips = [
        Clip(
            id=row["slice_file_name"],
            path=files.place(f"fold{row['fold']}/{row['slice_file_name']}"),
            labels=(row["class"],),
            fold=row["fold"],
            group=row["fsID"],
        )
        for _, row in rows
    ]
    return Listing(clips=clips, classes=tuple(classes[number] for number in sorted(classes)))


URBANSOUND8K = DatasetSpec(
    name="urbansound8k",
    title="UrbanSound8K",
    read=read,
    classes=10,
    sizes={"all": 8_732},
    multilabel=False,
    metric="accuracy, mean of 10 folds",
    audio="8 to 192 kHz, mono and stereo, 0.05 to 4 s",
    licence="CC BY-NC 3.0",
    origin="https://zenodo.org/records/1203745",
    layout="metadata/UrbanSound8K.csv, audio/fold1/ to fold10/",
    citation="Salamon et al., ACM MM 2014, https://doi.org/10.1145/2647868.2655045",
    note=(
        "Ten official folds, for cross-validation, never to be drawn anew. `group` is the Freesound "
        "recording."
    ),
)
