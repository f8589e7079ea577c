"""Models of transformers: configuration, feature extractor and weights, each refused in one line."""

import contextlib
import logging
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch

from featcache.errors import InputError, MismatchError, MissingError
from featcache.weights.download import reason_of, unreachable

NEEDS = "hf: encoders need transformers 5; install it with: pip install 'transformers>=5,<6'"
# Made anew where a checkpoint lacks it, and never used here: what masked frames become in training.
_UNUSED = "masked_spec_embed"


class Described(NamedTuple):
    """What a repository says of its model, before any weight is read."""

    config: Any
    extractor: Any


def describe(name: str, trust_remote_code: bool) -> Described:
    """Configuration and feature extractor of ``hf:OWNER/NAME`` or ``hf:FOLDER``.

    Raises:
        MissingError: it is not here and cannot be fetched.
        InputError: transformers is missing, the model has no audio side, or it asks to run its own code.
    """
    place = place_of(name)
    try:
        from transformers import AutoConfig, AutoFeatureExtractor
    except ImportError as error:
        raise InputError(NEEDS) from error
    with _quiet():
        config = _read(name, AutoConfig, place, trust_remote_code)
        extractor = _read(name, AutoFeatureExtractor, place, trust_remote_code)
    if not isinstance(getattr(extractor, "sampling_rate", None), int):
        raise InputError(
            f"{name} is a {config.model_type}: its {type(extractor).__name__} takes no audio of a known "
            "sample rate; give a model with an audio encoder"
        )
    return Described(config, extractor)


def empty_model(described: Described, trust_remote_code: bool) -> Any:
    """The model's audio encoder without memory: shapes alone."""
    from transformers import AutoModel

    config = deepcopy(described.config)
    audio = getattr(config, "audio_config", config)
    if getattr(audio, "enable_fusion", False):  # CLAP's looks at values; without it the sizes are the same
        audio.enable_fusion = False
    try:
        with _quiet(), torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # code of a repository without an AutoModel, or that looks at values
        raise InputError(
            f"hf: a {config.model_type} cannot be made by transformers' AutoModel ({reason_of(error)}); "
            "write a plug-in for it (docs/adding-an-encoder.md)"
        ) from error
    return audio_side(model)[1].eval()


def load_model(name: str, config: Any, trust_remote_code: bool) -> Any:
    """The model's audio encoder with its weights, float32.

    Raises:
        MissingError: the weights are not here and cannot be fetched.
        MismatchError: they are of another size, or some of the audio encoder's are not there.
    """
    from transformers import AutoModel

    try:
        with _quiet():
            model, report = AutoModel.from_pretrained(
                place_of(name),
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=trust_remote_code,
            )
    except OSError as error:
        raise MissingError(unreachable(name, error)) from error
    except Exception as error:  # transformers raises RuntimeError, ValueError, safetensors its own
        raise MismatchError(
            f"{name}: its weights do not fit its config.json ({reason_of(error)}); fetch both again"
        ) from error
    prefix, encoder = audio_side(model)
    missing = sorted(
        key for key in report["missing_keys"] if key.startswith(prefix) and not key.endswith(_UNUSED)
    )
    if missing:
        raise MismatchError(
            f"{name}: its weights lack {missing[0]} and {len(missing) - 1} more of the audio encoder, which "
            "would be random; give the weights of this model"
        )
    return encoder


def audio_side(model: Any) -> tuple[str, Any]:
    """The audio encoder inside a model, and the prefix of its parameters there."""
    if hasattr(model, "audio_model"):  # CLAP
        return "audio_model.", model.audio_model
    if model.config.is_encoder_decoder:  # Whisper, Moonshine, Speech2Text
        return "encoder.", model.get_encoder()
    return "", model


def place_of(name: str) -> str:
    """The repository or folder of a name.

    Raises:
        InputError: the name has neither form.
    """
    place = name.removeprefix("hf:")
    if Path(place).expanduser().is_dir():
        return str(Path(place).expanduser())
    if place.startswith((".", "/", "~")):
        raise MissingError(f"no folder at {place}; write hf:OWNER/NAME or hf:FOLDER of a saved model")
    if place.count("/") != 1 or not all(place.split("/")):
        raise InputError(f"{name} names no model; write hf:OWNER/NAME or hf:FOLDER of a saved model")
    return place


def _read(name: str, kind: Any, place: str, trust_remote_code: bool) -> Any:
    try:
        # Never None: transformers would ask at the terminal then.
        return kind.from_pretrained(place, trust_remote_code=trust_remote_code)
    except OSError as error:
        what = "config.json" if kind.__name__ == "AutoConfig" else "preprocessor_config.json"
        if Path(place).is_dir():
            raise MissingError(
                f"{name} has no readable {what} ({reason_of(error)}); save model and feature extractor there"
            ) from error
        raise MissingError(unreachable(name, error)) from error
    except Exception as error:  # ValueError, KeyError … by version
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{name} asks to run Python code from its repository, which may do anything that you may; "
                "read that code, then allow it with trust_remote_code=true",
                options=("encoder_options",),
            ) from error
        raise InputError(
            f"{name} has no audio feature extractor that transformers knows ({reason_of(error)}); "
            "give a model with an audio encoder"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' tables and bars: what matters of them becomes an error."""
    from transformers.utils import logging as theirs

    hub, level, bars = (
        logging.getLogger("huggingface_hub"),
        theirs.get_verbosity(),
        theirs.is_progress_bar_enabled(),
    )
    before = hub.level
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        hub.setLevel(before)
        if bars:
            theirs.enable_progress_bar()
