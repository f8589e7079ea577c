"""Publishing a cache as a data set of the Hugging Face Hub."""

from collections.abc import Iterable
from pathlib import Path

from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import Entry
from featcache.cache.remote.card import dataset_card
from featcache.cache.remote.transferred import Transferred
from featcache.errors import CacheError, InputError

_PREFIXES = ("hf-hub:", "hf://datasets/")
_LEFT = ["lock", "**/*.partial", "*.partial", "README.md"]  # the page is written below


def is_hub(address: str | Path) -> bool:
    """Whether an address is a data set of the Hub.

    >>> is_hub("hf-hub:me/tokens"), is_hub("hf://datasets/me/tokens"), is_hub("s3://b/c")
    (True, True, False)
    """
    return str(address).startswith(_PREFIXES)


def push_to_hub(path: Path, address: str, layout: CacheLayout, entries: Iterable[Entry]) -> Transferred:
    """Upload a cache by the Hub's own client, which sends no file twice.

    The page (README.md) is made of the fingerprint and written first, unless the repository has one.

    Raises:
        InputError: the address is not OWNER/NAME.
        CacheError: the Hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    name = address
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    if name.count("/") != 1 or not all(name.split("/")):
        raise InputError(f"{address} must be hf-hub:OWNER/NAME, a data set of the Hub", options=("address",))
    entries, api = list(entries), HfApi()
    try:
        api.create_repo(name, repo_type="dataset", exist_ok=True)
        if not api.file_exists(name, "README.md", repo_type="dataset"):
            page = dataset_card(name, layout, entries).encode()
            api.upload_file(path_or_fileobj=page, path_in_repo="README.md", repo_id=name, repo_type="dataset")
        api.upload_folder(repo_id=name, folder_path=path, repo_type="dataset", ignore_patterns=_LEFT)
    except (HfHubHTTPError, OSError) as error:
        why = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise CacheError(f"{address}: {why}; run the same command again to go on") from error
    size = sum(file["bytes"] for entry in entries for file in entry.files.values())
    clips = sum(entry.clips for entry in entries)
    return Transferred(place=address, shards=len(entries), clips=clips, num_bytes=size)
