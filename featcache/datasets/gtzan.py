"""GTZAN: music of ten genres."""

from featcache.datasets.listing import Listing
from featcache.datasets.root import AudioFiles, Root
from featcache.datasets.spec import DatasetSpec
from featcache.manifest import Clip

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")


def read(root: Root) -> Listing:
    """A folder for each genre."""
    main = root.find("genres/blues", "genres_original/blues", "blues").parent
    clips = [
        Clip(id=path.name, path=path, labels=(genre,))
        for genre in GENRES
        for path in AudioFiles(main / genre).files.values()
    ]
    return Listing(clips=clips, classes=GENRES)


GTZAN = DatasetSpec(
    name="gtzan",
    title="GTZAN",
    read=read,
    classes=10,
    sizes={"all": 1_000},
    multilabel=False,
    metric="accuracy",
    audio="22.05 kHz mono, 30 s",
    licence="not stated",
    origin="copies of genres.tar.gz; the original site is gone",
    layout="genres/blues/ to genres/rock/",
    citation="Tzanetakis and Cook, IEEE TSAP 2002, https://doi.org/10.1109/TSA.2002.800560",
    note=(
        "No official split: splits that keep artists apart are torchaudio's lists, which we do not copy. "
        "14 of its 1,000 audios are copies of others (the check names them), and jazz.00054 cannot be read "
        "in some copies."
    ),
)
