"""A trained head as an ONNX file, for use where there is no torch."""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from featcache.errors import InputError
from featcache.heads.base import Head

INPUTS = {
    "cls": ("cls",),
    "mean": ("cls",),
    "tokens": ("tokens", "valid"),
    "tokens+cls": ("tokens", "cls", "valid"),
    "layers": ("tokens", "cls", "valid"),
}


class _Named(nn.Module):
    """A head with its own inputs alone, by position."""

    def __init__(self, head: Head, names: tuple[str, ...]) -> None:
        super().__init__()
        self.head, self.names = head, names

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        logits: Tensor = self.head(given.get("tokens"), given.get("cls"), given.get("valid"))
        return logits


def export_onnx(head: Head, path: str | Path, num_tokens: int) -> None:
    """Write a head as an ONNX graph; the number of clips stays free.

    The inputs are those that the head reads: float32 ``tokens`` (clips, N, D), or (clips, layers, N, D),
    ``cls`` (clips, D) or (clips, layers, D), bool ``valid`` (clips, N). The output is ``logits`` (clips, C).

    Args:
        num_tokens: N.

    Raises:
        InputError: the packages onnx and onnxscript are not installed.
    """
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise InputError(f"ONNX export needs {' and '.join(missing)}; pip install onnx onnxscript")
    names = INPUTS[head.reads]
    layers = (head.config["num_layers"],) if "num_layers" in head.config else ()
    # Two clips: torch.export takes a size of one for a constant.
    example = {
        "tokens": torch.randn(2, *layers, num_tokens, head.config["dim"]),
        "cls": torch.randn(2, *layers, head.config["dim"]),
        "valid": torch.ones(2, num_tokens, dtype=torch.bool),
    }
    training = head.training
    program = torch.onnx.export(
        _Named(head, names).eval(),
        tuple(example[name] for name in names),
        input_names=names,
        output_names=["logits"],
        dynamic_shapes=(tuple({0: torch.export.Dim.DYNAMIC} for _ in names),),
        dynamo=True,
        verbose=False,
    )
    head.train(training)
    assert program is not None  # only the older exporter returns nothing
    program.save(str(path))
