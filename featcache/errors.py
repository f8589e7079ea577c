"""The errors a user can meet; the command line turns each into one line and an exit code."""

from collections.abc import Sequence
from difflib import get_close_matches


class FeatcacheError(Exception):
    """Something went wrong that the message explains: what was wanted, found, and to be done.

    Args:
        options: names of the arguments that the message speaks of; the command line adds its own
            names for them

    ``exit_code`` is what the command line ends with: 1 for a run that failed.
    """

    exit_code = 1

    def __init__(self, *words: object, options: Sequence[str] = ()) -> None:
        super().__init__(*words)
        self.options = tuple(options)


class InputError(FeatcacheError, ValueError):
    """What the caller gave cannot be used: a bad manifest, option, label or checkpoint."""

    exit_code = 2


class MissingError(InputError, FileNotFoundError):
    """A file, cache or weight that was named does not exist."""

    # FileNotFoundError formats (errno, text) pairs; ours is one sentence.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class AudioError(InputError):
    """One clip cannot be decoded; extract records the reason and goes on."""


class MismatchError(InputError):
    """Two things that must agree do not: fingerprints, shapes, weights and architecture."""


class CacheError(FeatcacheError, RuntimeError):
    """A cache on disk is damaged, locked by another process, or cannot be written."""


class OutputError(FeatcacheError, RuntimeError):
    """Results cannot be written: the disk is full, or another process is writing the same ones."""


class Interrupted(FeatcacheError, KeyboardInterrupt):
    """The user stopped a run; the message says what is kept and how to go on."""

    exit_code = 130  # what shells report for Ctrl-C


def unknown(kind: str, name: str, known: list[str], options: Sequence[str] = ()) -> InputError:
    """The error for a name that is in no table, with the nearest known one.

    >>> str(unknown("encoder", "beets", ["beats", "eat"]))
    "no encoder named 'beets'; did you mean 'beats'? known: beats, eat"
    """
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"no {kind} named {name!r}; {hint}known: {', '.join(known)}", options=options)
