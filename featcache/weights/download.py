"""Where weights are: a local path, a Hugging Face repository, or a URL kept in its cache folder."""

import hashlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from featcache.errors import CacheError, InputError, MissingError
from featcache.weights.known import describe

logger = logging.getLogger(__name__)

# In the order of preference; a safetensors file cannot run code.
_NAMES = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def locate(weights: str) -> Path:
    """The local file of ``weights``, fetched first if it is not in the cache.

    Args:
        weights: a path; ``hf-hub:owner/name`` or ``hf-hub:owner/name/file``; an http(s) URL.

    Raises:
        MissingError: there is no such file, or it cannot be fetched from here.
    """
    if weights.startswith("hf-hub:"):
        return _from_hub(weights)
    if weights.startswith(("http://", "https://")):
        return _from_url(weights)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise MissingError(f"no weights at {weights}; give a checkpoint file, hf-hub:owner/name or a URL")
    return path


def downloaded(address: str) -> bool:
    """Whether the weights of ``hf-hub:owner/name`` or of a URL are here already; asks no network."""
    if address.startswith("hf-hub:"):
        parts = address.removeprefix("hf-hub:").split("/", 2)
        files = list(_cached_files("/".join(parts[:2])))
        return parts[2] in files if len(parts) == 3 else _choose(files) is not None
    return _kept_at(address).exists()


def _from_hub(weights: str) -> Path:
    import huggingface_hub

    parts = weights.removeprefix("hf-hub:").split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise InputError(f"{weights} names no repository; write hf-hub:owner/name or hf-hub:owner/name/file")
    repository = "/".join(parts[:2])
    cached = _cached_files(repository)
    name = parts[2] if len(parts) == 3 else _choose(list(cached))
    if name in cached:
        return cached[name]
    logger.warning("fetching %s from the Hugging Face Hub%s", weights, describe(weights))
    try:
        with hub_client():
            files = list(huggingface_hub.HfApi().list_repo_files(repository))
            name = name or _choose(files)
            if name is not None:
                return _verified(Path(huggingface_hub.hf_hub_download(repository, name)), weights)
    except CacheError:
        raise
    except Exception as error:  # the transport's own classes differ between versions of the client
        raise MissingError(unreachable(weights, error)) from error
    found = ", ".join(sorted(file for file in files if file.endswith(_SUFFIXES))) or "none"
    raise MissingError(f"{weights} should hold one file of weights; found: {found}; name it: {weights}/FILE")


def _verified(path: Path, weights: str) -> Path:
    """A file that has just come, if it is what the Hub says: its cache names a large file by its sha256.

    Raises:
        CacheError: it is not; the file is deleted, so that the next run fetches it again.
    """
    blob = path.resolve()
    if len(blob.name) == 64:
        with blob.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != blob.name:
            blob.unlink()
            raise CacheError(
                f"{weights} came with the sha256 {found[:12]}…, the Hub says {blob.name[:12]}…; "
                "fetch it again"
            )
    return path


def _cached_files(repository: str) -> dict[str, Path]:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(huggingface_hub.snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return {}
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def _choose(files: list[str]) -> str | None:
    for name in _NAMES:
        if name in files:
            return name
    candidates = [name for name in files if name.endswith(_SUFFIXES)]
    return candidates[0] if len(candidates) == 1 else None


@contextmanager
def hub_client() -> Iterator[None]:
    """The hub's client without a line for each retry, and without the retries where the hub has no address.

    It would try for half a minute, and timm for a whole one, before either looks at what it has fetched.
    """
    from huggingface_hub import constants

    hub = logging.getLogger("huggingface_hub")
    level, offline = hub.level, constants.HF_HUB_OFFLINE
    hub.setLevel(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = offline or not _has_address(constants.ENDPOINT)
    try:
        yield
    finally:
        hub.setLevel(level)
        constants.HF_HUB_OFFLINE = offline


def _has_address(url: str) -> bool:
    """Whether a host can be looked up; where a proxy does that, nobody knows."""
    host = urlsplit(url).hostname
    if host is None or getproxies():
        return True
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def _from_url(url: str) -> Path:
    from torch.hub import download_url_to_file

    path = _kept_at(url)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    logger.warning("fetching %s%s", url, describe(url))
    try:
        download_url_to_file(url, os.fspath(path), progress=False)  # to a temporary name, then renamed
    except (OSError, ValueError) as error:  # URLError is an OSError
        raise MissingError(unreachable(url, error)) from error
    return path


def _kept_at(url: str) -> Path:
    from huggingface_hub.constants import HF_HOME

    name = Path(urlsplit(url).path).name or "weights.pt"
    return Path(HF_HOME) / "featcache" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"


def unreachable(weights: str, error: Exception) -> str:
    """The message for weights that are not here and cannot be fetched."""
    reason = reason_of(error)
    return f"{weights} is not in the cache and cannot be fetched ({reason}); download it and give its path"


def reason_of(error: Exception) -> str:
    """The first line of what a library raised, at most 120 letters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:120]
