"""Contracts as checks: each says in sentences what its subject breaks."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Subject = TypeVar("Subject")


def hold_to(checks: Sequence[Callable[[Subject], Iterator[str]]], subject: Subject, name: str) -> None:
    """Run checks in order until one finds breaches: later ones rest on earlier ones.

    A check that raises is a breach too; what it raised is the error's cause.

    Raises:
        AssertionError: every breach of the first check that found any, one a line.

    >>> hold_to([lambda number: iter(["is odd"] if number % 2 else [])], 4, name="four")
    """
    for check in checks:
        problems: list[str] = []
        cause = None
        try:
            problems.extend(check(subject))
        except Exception as error:
            what = check.__name__.strip("_").replace("_", " ")
            problems.append(f"checking {what}, it raised {type(error).__name__}: {error}")
            cause = error
        if problems:
            raise AssertionError("\n".join(f"{name}: {problem}" for problem in problems)) from cause
