"""The table of solved heads, and from a name to one of them with its features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from featcache.errors import InputError
from featcache.heads.data.tasks import Kind
from featcache.heads.options import split_options
from featcache.heads.registry import Choice
from featcache.heads.solved.features import FEATURES, default_features
from featcache.heads.solved.logistic import fit_logistic
from featcache.heads.solved.neighbours import fit_centroids, fit_neighbours
from featcache.heads.solved.ridge import fit_ridge

Scorer = Callable[[Tensor], Tensor]  # features (m, D) -> logits (S, m, C), one a strength
Fit = Callable[[Tensor, Tensor, Kind, Sequence[float]], Scorer]  # features, labels (n, C), kind, strengths


@dataclass(frozen=True, kw_only=True)
class SolvedSpec:
    """One row of the table of solved heads."""

    name: str
    fit: Fit
    knob: str | None  # what is chosen: "C", "alpha", "k"; None: nothing
    strengths: tuple[float, ...]  # its values, from the strongest penalty to the weakest
    summary: str
    formula: str
    source: str


_SPECS = (
    SolvedSpec(
        name="logreg",
        fit=fit_logistic,
        knob="C",
        strengths=tuple(10.0**power for power in range(-4, 5)),
        summary="logistic regression on standardised features, its penalty chosen",
        formula="min C * sum_i loss(W x_i + b, y_i) + norm(W)^2 / 2",
        source="as scikit-learn's LogisticRegression; multi-label: one class against the rest",
    ),
    SolvedSpec(
        name="ridge",
        fit=fit_ridge,
        knob="alpha",
        strengths=tuple(10.0**power for power in range(6, -5, -1)),
        summary="least squares onto labels on standardised features, its penalty chosen",
        formula="min sum_i norm(W x_i + b - y_i)^2 + alpha * norm(W)^2",
        source="as scikit-learn's Ridge; targets 0 and 1, multi-label -1 and 1",
    ),
    SolvedSpec(
        name="knn",
        fit=fit_neighbours,
        knob="k",
        strengths=(50, 20, 10, 5, 1),
        summary="the k train clips of highest cosine vote, k chosen",
        formula="sum over k nearest of exp(cos(x, x_i) / 0.07) * y_i",
        source="arXiv 2104.14294 (DINO)",
    ),
    SolvedSpec(
        name="centroid",
        fit=fit_centroids,
        knob=None,
        strengths=(1,),
        summary="cosine to the mean of each class; multi-label: to the mean with it less the mean without",
        formula="cos(x, mean of unit x_i of the class)",
        source="nearest class mean",
    ),
)

SOLVED: dict[str, SolvedSpec] = {spec.name: spec for spec in _SPECS}


def is_solved(text: str) -> bool:
    """Whether NAME or NAME:OPTION=VALUE,… names a solved head.

    >>> is_solved("logreg:features=mean+sd"), is_solved("linear")
    (True, False)
    """
    return text.partition(":")[0] in SOLVED


def parse_solved(text: str, has_cls: bool) -> Choice:
    """Read NAME or NAME:features=… of a solved head; without features it has those of ``linear``.

    Raises:
        InputError: an option that it does not have, unknown features, or cls where there is none.

    >>> parse_solved("knn", has_cls=False)
    Choice(name='knn', options={'features': 'mean'})
    """
    name, options = split_options(text)
    features = options.pop("features", default_features(has_cls))
    refused = f"head {name!r} cannot be solved with "
    if options:
        raise InputError(f"{refused}{', '.join(options)}: its one option is features", options=("heads",))
    known = [own for own in FEATURES if has_cls or own != "cls"]
    if features not in known:
        raise InputError(
            f"{refused}features={features}: wanted one of {', '.join(known)}"
            + ("; this encoder has no cls" if features == "cls" else ""),
            options=("heads",),
        )
    return Choice(name, {"features": features})
