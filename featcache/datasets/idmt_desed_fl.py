"""IDMT-DESED-FL: synthetic domestic soundscapes, very probably what the paper calls ``desed``."""

from featcache.datasets.hub import HubTable
from featcache.datasets.listing import Listing
from featcache.datasets.root import Root
from featcache.datasets.spec import DatasetSpec
from featcache.errors import InputError


def read(root: Root) -> Listing:
    """Refuse: only the shards of the Hub can be read.

    Raises:
        InputError: always; how the archive is laid out is not published where we could read it.
    """
    raise InputError(
        f"no parquet files with audio at {root.path}; {root.title} is read as the Hub has it "
        "(lrauch/desed). For its archive, whose layout is not known to featcache, write a manifest: a CSV "
        "file with path,labels,split"
    )


IDMT_DESED_FL = DatasetSpec(
    name="idmt-desed-fl",
    title="IDMT-DESED-FL",
    read=read,
    hub=HubTable(),
    classes=10,
    sizes={"all": 30_000},
    multilabel=True,
    metric="mAP",
    audio="10 s",
    licence="CC BY-SA 4.0 or CC BY-NC-ND 4.0: two statements differ",
    origin="https://zenodo.org/records/7551584; very probably hf.co/datasets/lrauch/desed",
    layout="*.parquet with audio inside",
    citation="Johnson et al., 2021, https://arxiv.org/abs/2102.08833",
    note=(
        "Very probably the paper's `desed` (20,000 train clips, which DESED proper has not). Its columns "
        "could not be looked up: the first column with a usual name for labels is taken, else the columns "
        "found are listed."
    ),
)
