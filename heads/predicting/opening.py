"""A saved head, ready to predict."""

from pathlib import Path
from typing import Any

from featcache.heads.base import Head, HeadSpec
from featcache.heads.checkpoint import load, load_config
from featcache.heads.predicting.predictor import Predictor


def open_predictor(path: str | Path, kind: type[Head] | HeadSpec | None = None, **encoder: Any) -> Predictor:
    """The head in a file that ``featcache probe`` wrote, with its encoder.

    Args:
        kind: the class of a user's head, see `featcache.heads.load`
        encoder: ``encoder``, ``weights``, ``encoder_options`` and ``device`` as for `Predictor`

    Raises:
        MissingError: there is no such file.
        InputError: it is no head that a probe saved, or its encoder cannot be built.
    """
    return Predictor(load(path, kind), load_config(path), path, **encoder)
