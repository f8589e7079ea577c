"""``check_head``: all checks of one head."""

from typing import Any

from featcache.contract import hold_to
from featcache.errors import InputError
from featcache.heads.registry import Named, spec_of
from featcache.heads.testing import answers, declared, learning, side_by_side
from featcache.heads.testing.case import Case

CHECKS = (
    declared.signature,
    declared.declarations,
    declared.building,
    declared.sizes,
    answers.logits,
    answers.alone,
    answers.tokens,
    answers.dtypes,
    answers.without_cls,
    learning.gradients,
    learning.groups,
    learning.penalty,
    side_by_side.stacked,
    learning.saving,
)


def check_head(head: Named, *, dim: int = 64, **options: Any) -> None:
    """Hold a head to what training, testing and saving rely on, with made-up tokens.

    Args:
        head: a class, a spec, or a name as for ``head_spec``
        dim: of the tokens, for heads that cannot take just any
        options: of the head, to check it with others than its defaults

    Raises:
        AssertionError: it breaks the contract; the message names every breach that was found.
        InputError: there is no head of that name, or what has the name is none.

    >>> check_head("linear", norm="batch")
    """
    try:
        spec = spec_of(head)
    except InputError as error:
        if isinstance(head, str):
            raise
        raise AssertionError(str(error)) from error
    hold_to(CHECKS, Case(spec, dim, options), spec.name)
