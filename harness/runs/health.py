"""Marks of a run, from its curve: did the method learn its objective, and did that hurt the encoder?

A mark never changes a number. It keeps readers from taking a method that failed to train for one that does not help.
Thresholds are compared with means over the last tenth of the logged iterations (drowning: the last half), so that
neither the start nor a single batch decides. Never imports torch.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from harness.errors import UserError
from harness.runs.record import RECORD, Mark, Record

NOT_LEARNT, COLLAPSED, DROWNS = "did not learn its objective", "collapsed", "terms drown cross entropy"
COLLAPSED_FROM = 0.9  # mean cosine of pixels of different classes: nearly all in one direction
# The norm of the encoder's gradient from the terms over that from cross entropy, and their cosine. A judgement: on
# CamVid Contextrast has a ratio of 1 to 2 and loses nothing, and a loss on the metric itself may have a larger one and
# help, since it points the same way.
DROWNS_FROM, ALIGNED_FROM = 3.0, 0.5
MEANING = {
    NOT_LEARNT: "at the end the method's terms are no lower than for embeddings that know nothing (chance level)",
    COLLAPSED: "at the end random pixels of different classes, or the sampled positives and negatives both, "
    f"have a mean cosine above {COLLAPSED_FROM}",
    DROWNS: "in the second half of training the method's gradient at the encoder's maps is more than "
    f"{DROWNS_FROM:g} times cross entropy's, and points elsewhere (cosine below {ALIGNED_FROM:g})",
}
OF_NETWORK = ("loss", "cross_entropy", "auxiliary")  # columns of curve.csv that are not a method's terms
LAST_LOSS = "gradient_norm"  # losses and terms are before it, diagnostics after it

Curve = Mapping[str, Sequence[float]]  # curve.csv by column, NaN for an empty field


def marks_of_curve(curve: Curve, weight: float | None = None) -> list[Mark]:
    """The marks of a run, from its curve; a missing column gives no mark.

    weight: of the method's loss, for older curves without `chance/TERM`. If such a curve has a single term and a column
    `negatives`, the term is taken as InfoNCE with that many negatives: its chance level is weight * log(1 + negatives).
    """
    found = []
    terms = [name for name in curve if f"chance/{name}" in curve]
    value, chance = _end(_sums(curve, terms)), _end(_sums(curve, [f"chance/{name}" for name in terms]))
    if not terms and weight and "negatives" in curve and len(older := _terms_of_older_curve(curve)) == 1:
        value = _end(curve[older[0]])
        chance = _end([weight * math.log1p(number) for number in curve["negatives"]])
    if value is not None and chance is not None and chance > 0 and value >= chance:
        found.append(Mark(NOT_LEARNT, value, chance))

    # Random pixels and the sampled pairs: after mining, random pixels may be just below the threshold although all
    # embeddings have one direction, and older curves have only the sampled pairs.
    both = [_end(curve.get(name, ())) for name in ("positive_similarity", "negative_similarity")]
    defined = [each for each in both if each is not None]
    known = [_end(curve.get("similarity_between", ())), min(defined) if len(defined) == len(both) else None]
    alike = max((each for each in known if each is not None), default=None)
    if alike is not None and alike > COLLAPSED_FROM:
        found.append(Mark(COLLAPSED, alike, COLLAPSED_FROM))

    ratio, cosine = (_end(curve.get(f"gradient_{name}", ()), share=2) for name in ("ratio", "cosine"))
    if ratio is not None and ratio > DROWNS_FROM and (cosine is None or cosine < ALIGNED_FROM):
        found.append(Mark(DROWNS, ratio, DROWNS_FROM))
    return found


def health_of(folder: Path, record: Record | None = None) -> list[Mark]:
    """The marks of a run in its `folder`, from its curve by today's thresholds, or else those of its record.

    `record`, if it is known already, also says the weight of the method's loss. Empty without a curve and a record.
    """
    if record is None:
        with suppress(UserError):
            record = Record.load(folder / RECORD)
    try:
        curve = read_curve(folder / "curve.csv")
    except (OSError, ValueError):
        return record.health if record else []
    weight = record.current_options.get("weight") if record else None
    return marks_of_curve(curve, weight if isinstance(weight, int | float) else None)


def marks_of(runs: Sequence[Sequence[Mark]]) -> list[str]:
    """The marks of an arm, from those of each of its runs: "collapsed (2 of 3 runs)", or the bare mark for all runs."""
    texts = []
    for mark in (NOT_LEARNT, COLLAPSED, DROWNS):
        number = sum(any(each.mark == mark for each in marks) for marks in runs)
        if number:
            texts.append(mark if number == len(runs) else f"{mark} ({number} of {len(runs)} runs)")
    return texts


def read_curve(path: Path) -> dict[str, list[float]]:
    """curve.csv by column, NaN for an empty field. Raises OSError without it and ValueError if it is damaged."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    return {name: [float(row[name]) if row[name] else math.nan for row in rows] for name in names}


def _terms_of_older_curve(curve: Curve) -> list[str]:
    names = list(curve)
    if LAST_LOSS not in names or "loss" not in names:
        return []
    return [name for name in names[names.index("loss") : names.index(LAST_LOSS)] if name not in OF_NETWORK]


def _sums(curve: Curve, names: Sequence[str]) -> list[float]:
    return [sum(values) for values in zip(*(curve[name] for name in names), strict=True)] if names else []


def _end(values: Sequence[float], share: int = 10) -> float | None:
    """The mean of the last 1/share of the values that are defined, at least one; None without any."""
    last = [value for value in values[-max(1, math.ceil(len(values) / share)) :] if math.isfinite(value)]
    return sum(last) / len(last) if last else None
