"""File names that hold a YouTube id: with and without ``Y``, and with the segment behind it."""

import re

ID = 11  # characters of a YouTube id; it may begin with Y, - or _ and hold _ and -
SEGMENT = re.compile(r"_(\d+(?:\.\d+)?)(?:_\d+(?:\.\d+)?)?")


def youtube_id(stem: str) -> str | None:
    """The id in a file's name; by length, since ids may begin with Y and hold what looks like a segment.

    >>> youtube_id("Y-0RWZT-miFs_420.000_430.000"), youtube_id("Yfoo_bar_12"), youtube_id("YYfoo_bar_12")
    ('-0RWZT-miFs', 'Yfoo_bar_12', 'Yfoo_bar_12')
    """
    found = _parts(stem)
    return found[0] if found else None


def segment_key(stem: str) -> str:
    """A name that is the same for all spellings of one segment; the name itself where it is none.

    >>> segment_key("YKK227gPpRn4_30.000_40.000"), segment_key("KK227gPpRn4_30_40")
    ('KK227gPpRn4@30', 'KK227gPpRn4@30')
    """
    found = _parts(stem)
    return f"{found[0]}@{float(found[1] or 0):g}" if found else stem


def _parts(stem: str) -> tuple[str, str | None] | None:
    for begin in (0, 1) if stem.startswith("Y") else (0,):
        rest = stem[begin + ID :]
        match = SEGMENT.fullmatch(rest)
        if len(stem) >= begin + ID and (not rest or match):
            return stem[begin : begin + ID], match[1] if match else None
    return None
