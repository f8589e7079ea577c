"""Where weights are: a local path, a Hugging Face repository, or a URL kept in its cache folder."""

import hashlib
import os
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

from featcache.errors import InputError, MissingError

# In the order of preference; a safetensors file cannot run code.
_NAMES = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def locate(weights: str) -> Path:
    """The local file of ``weights``, fetched first if need be.

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


def _from_hub(weights: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    parts = weights.removeprefix("hf-hub:").split("/", 2)
    if len(parts) < 2:
        raise InputError(f"{weights} names no repository; write hf-hub:owner/name")
    repository = "/".join(parts[:2])
    try:
        name = parts[2] if len(parts) == 3 else _choose(_files(repository), weights)
        return Path(huggingface_hub.hf_hub_download(repository, name))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, MissingError):
            raise
        raise MissingError(_unreachable(weights, error)) from error


def _files(repository: str) -> list[str]:
    """What the repository holds; offline, what the cache holds of it."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return list(huggingface_hub.HfApi().list_repo_files(repository))
    except (OfflineModeIsEnabled, ConnectionError, OSError) as error:
        try:
            folder = Path(huggingface_hub.snapshot_download(repository, local_files_only=True))
        except LocalEntryNotFoundError:
            raise error from None
        return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def _choose(files: list[str], weights: str) -> str:
    for name in _NAMES:
        if name in files:
            return name
    candidates = sorted(name for name in files if name.endswith(_SUFFIXES))
    if len(candidates) == 1:
        return candidates[0]
    found = f"{len(candidates)} ({', '.join(candidates[:5])})" if candidates else "none"
    raise MissingError(
        f"{weights} should hold one file of weights and holds {found}; name it: {weights}/FILE"
    )


def _from_url(url: str) -> Path:
    from huggingface_hub.constants import HF_HOME
    from torch.hub import download_url_to_file

    name = Path(urlsplit(url).path).name or "weights.pt"
    path = Path(HF_HOME) / "featcache" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        download_url_to_file(url, os.fspath(path), progress=False)  # to a temporary name, then renamed
    except (URLError, OSError, ValueError) as error:
        raise MissingError(_unreachable(url, error)) from error
    return path


def _unreachable(weights: str, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"{weights} is not in the cache and cannot be fetched ({reason[:150]}); download it and give its path"
    )
