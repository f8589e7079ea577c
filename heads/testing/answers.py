"""What a head answers: of which tokens its logits are, and of what else they must not be."""

from collections.abc import Iterator

import torch
from torch import Tensor

from featcache.heads.testing.case import CLASSES, LIMIT, Case, answer, clips, gap


def logits(case: Case) -> Iterator[str]:
    for training in (True, False):
        inputs = case.inputs()
        kept = [None if part is None else part.clone() for part in inputs]
        head = case.build().train(training)
        logits = head(*inputs)
        wanted = (len(case.valid), CLASSES)
        if not isinstance(logits, Tensor) or logits.shape != wanted or logits.dtype != torch.float32:
            found = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else repr(logits)
            yield f"gives {found}, not float32 (B, C) = {wanted}"
            return
        if not logits.isfinite().all():
            yield "gives logits that are not finite"
        if any(
            was is not None and now is not None and not torch.equal(was, now)
            for was, now in zip(kept, inputs, strict=True)
        ):
            yield "changes the tensors it is given, which other heads read as well"
    if not torch.equal(head(*case.inputs()), logits):
        yield "gives other logits for the same clips in evaluation; draw at random in training alone"


def alone(case: Case) -> Iterator[str]:
    """After a step of training, whose statistics a head may keep."""
    for own in case.variants():
        head = case.build(**own).train()
        head(*case.inputs(seed=2))
        inputs = case.inputs()
        together = answer(head, inputs)
        for row in range(len(together)):
            apart = gap(together[row : row + 1], answer(head, clips(inputs, [row])))
            if apart > LIMIT:
                yield f"{case.words(own)}a clip's logits change by {apart:.1e} with its batch in evaluation"
                break


def tokens(case: Case) -> Iterator[str]:
    """Of which tokens, and in what order, the logits are."""
    tokens, cls, valid = case.inputs()
    if tokens is None or valid is None:
        return
    head = case.build()
    logits = answer(head, (tokens, cls, valid))
    order = torch.randperm(case.num_tokens, generator=torch.Generator().manual_seed(3))
    shuffled = answer(head, (tokens.index_select(-2, order), cls, valid[:, order]))
    if not head.needs_grid and (apart := gap(logits, shuffled)) > LIMIT:
        yield f"logits change by {apart:.1e} with the order of tokens; declare needs_grid = True if they must"
    if not case.options.get("use_padding"):
        audio = valid.view(len(valid), *[1] * (tokens.ndim - 3), -1, 1)
        loud = tokens.where(audio, 1000 * tokens.flip(0))
        if (apart := gap(logits, answer(head, (loud, cls, valid)))) > LIMIT:
            yield f"logits change by {apart:.1e} with padding tokens, where valid is False"
    everything = torch.ones_like(valid)
    if (apart := gap(answer(head, (tokens, cls, everything)), answer(head, (tokens, cls, None)))) > LIMIT:
        yield f"logits change by {apart:.1e} between valid=None and a mask that is all True"
    if head.direction_only:
        longer = tokens * torch.linspace(0.5, 4.0, case.num_tokens).unsqueeze(-1)
        if (apart := gap(logits, answer(head, (longer, cls, valid)))) > LIMIT:
            yield f"direction_only is True, but logits change by {apart:.1e} with the length of tokens"


def dtypes(case: Case) -> Iterator[str]:
    tokens, cls, valid = case.inputs()
    head = case.build()
    if tokens is not None:
        stored = [torch.float16, torch.bfloat16] + ([torch.int8] if head.direction_only else [])
        for dtype in stored:
            given = (tokens * (20 if dtype == torch.int8 else 1)).to(dtype)
            logits = answer(head, (given, cls, valid))
            if logits.dtype != torch.float32:
                yield f"gives {logits.dtype} for {dtype} tokens, not float32"
            elif (apart := gap(answer(head, (given.float(), cls, valid)), logits)) > 10 * LIMIT:
                yield f"logits of {dtype} tokens differ by {apart:.1e} from those of equal float32 tokens"


def without_cls(case: Case) -> Iterator[str]:
    """Of an encoder that has none."""
    tokens, cls, valid = case.inputs()
    if tokens is None or cls is None:
        return
    if not answer(case.build(), (tokens, None, valid)).isfinite().all():
        yield "gives logits that are not finite for cls=None, which encoders without one have"
