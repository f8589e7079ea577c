"""What reading a data set gives."""

from dataclasses import dataclass, field

from featcache.manifest import Clip
from featcache.manifest.events import Event


@dataclass(kw_only=True)
class Listing:
    """What the files of a data set list, whether the audio is there or not."""

    clips: list[Clip]
    classes: tuple[str, ...]  # in the order of the data set's own list
    events: list[Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what a user should know
    problems: list[str] = field(default_factory=list)  # what is not whole: an error unless it is allowed
