"""The table of data sets, by name."""

from featcache.datasets.audioset import AS2M, AS20K
from featcache.datasets.beans import BEANS
from featcache.datasets.birdset import BIRDSETS
from featcache.datasets.cremad import CREMA_D
from featcache.datasets.desed import DESED
from featcache.datasets.esc50 import ESC10, ESC50
from featcache.datasets.fsd50k import FSD50K
from featcache.datasets.gtzan import GTZAN
from featcache.datasets.idmt_desed_fl import IDMT_DESED_FL
from featcache.datasets.nsynth import INSTRUMENTS, PITCHES
from featcache.datasets.spass import SPASS
from featcache.datasets.spec import DatasetSpec
from featcache.datasets.speechcommands import WORDS_12, WORDS_35
from featcache.datasets.urbansed import URBAN_SED
from featcache.datasets.urbansound8k import URBANSOUND8K
from featcache.datasets.vocalsound import VOCALSOUND
from featcache.errors import unknown

# The paper's thirteen first, in its order; then what others use.
DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        AS20K, FSD50K, IDMT_DESED_FL, SPASS, URBAN_SED, ESC50, WORDS_12, *BIRDSETS, AS2M, DESED, ESC10,
        WORDS_35, URBANSOUND8K, GTZAN, INSTRUMENTS, PITCHES, CREMA_D, VOCALSOUND, *BEANS,
    )
}  # fmt: skip


def dataset_spec(name: str) -> DatasetSpec:
    """The row of a name.

    Raises:
        InputError: there is none; the message has the nearest.
    """
    if name not in DATASETS:
        raise unknown("data set", name, list(DATASETS))
    return DATASETS[name]
