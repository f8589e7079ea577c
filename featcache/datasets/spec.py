"""A data set as featcache knows it: what was published of it, and how its files are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from featcache.datasets.hub import HubTable
from featcache.datasets.listing import Listing
from featcache.datasets.root import Root


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A row of the table of data sets."""

    name: str
    title: str
    read: Callable[[Root], Listing]
    classes: int  # published
    sizes: Mapping[str, int]  # published clips by split; of "all" where no split was published
    multilabel: bool
    metric: str
    audio: str  # rate and length
    licence: str
    origin: str  # where to get it
    layout: str  # what is read below the root
    citation: str
    strong: str = "none"  # event times
    hub: HubTable | None = None  # how shards of parquet with audio inside are read, where the Hub has them
    note: str = ""  # what we chose, and what is not known
