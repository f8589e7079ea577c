"""A manifest of gcin-voice: the tone of a Mandarin syllable, by a speaker who was never heard.

    python docs/examples/mandarin_tones.py /usr/share/gcin-voice/ogg tones.csv

Debian's package gcin-voice has about 1,200 syllables, each in a folder named in Bopomofo with the tone as a
digit behind it, spoken by one person (3.ogg, GPL-3 or LGPL-3) and most by another (5.ogg, CC BY 3.0).
"""

import sys
from pathlib import Path

from featcache.errors import MissingError
from featcache.manifest import Clip, write_manifest

# By the names alone: where a syllable has all of them, five folders differ in this; 1 marks the neutral tone,
# of which there are 13, too few to tell apart: they are left out.
TONES = {"2": "rising", "3": "dipping", "4": "falling"}
SPEAKERS = {"3.ogg": "train", "5.ogg": "test"}


def tones(root: Path) -> list[Clip]:
    """A clip for each recording, labelled with its tone; one speaker trains, the other tests."""
    clips = []
    for file in sorted(root.glob("*/*.ogg")):
        last = file.parent.name[-1]
        if file.name in SPEAKERS and last != "1":
            id = f"{file.parent.name}/{file.name}"
            label = TONES.get(last, "high")
            clips.append(Clip(id=id, path=file, labels=(label,), split=SPEAKERS[file.name]))
    if not clips:
        raise MissingError(f"no syllables at {root}; wanted the folder ogg of Debian's package gcin-voice")
    return clips


if __name__ == "__main__":
    write_manifest(sys.argv[2], tones(Path(sys.argv[1])))
