"""``hf://``: a data set of the Hugging Face Hub, fetched into the Hub's own cache and read from there.

Whole files are fetched, not ranges of them: extraction reads each several times (its length, its digest, its
audio), and a run that goes on tomorrow should not fetch it again.
"""

import re
from pathlib import Path
from urllib.parse import unquote

from featcache.errors import InputError, MissingError
from featcache.weights.download import hub_client, reason_of

# A path collapses the two slashes.
_ADDRESS = re.compile(
    r"hf:/{1,2}datasets/(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<folder>.+?))?/?"
)


def is_remote(root: str | Path) -> bool:
    """Whether a root is an address on the Hub."""
    return str(root).startswith("hf:")


def fetch(root: str | Path) -> Path:
    """The folder in the Hub's cache that holds what an address names; what is not there yet is fetched.

    Args:
        root: ``hf://datasets/OWNER/NAME[@REVISION][/FOLDER]``; a ``/`` in a revision is written ``%2F``

    Raises:
        InputError: this is no such address.
        MissingError: it cannot be fetched, or has no such folder.
    """
    import huggingface_hub

    found = _ADDRESS.fullmatch(str(root))
    if not found:
        raise InputError(
            f"{root} is no address of a data set; wanted hf://datasets/OWNER/NAME, with @REVISION and "
            "/FOLDER behind it if need be"
        )
    revision, folder = found["revision"], found["folder"]
    try:
        with hub_client():
            top = huggingface_hub.snapshot_download(
                found["repo"],
                repo_type="dataset",
                revision=unquote(revision) if revision else None,
                allow_patterns=[f"{folder}/*"] if folder else None,
            )
    except Exception as error:  # the transport's own classes differ between versions of the client
        raise MissingError(
            f"{root} is not in the cache and cannot be fetched ({reason_of(error)}); download it "
            "('hf download') and name the folder"
        ) from error
    place = Path(top, folder or "")
    if not place.is_dir():
        raise MissingError(f"the Hub has no folder {folder} in {found['repo']}; name another")
    return place
