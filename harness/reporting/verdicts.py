"""Whether a published gain over a baseline was found again."""

from dataclasses import dataclass
from typing import Any

from harness import discovery
from harness.evaluation.external_arms import EXTERNAL
from harness.experiment import Arm, Experiment
from harness.reporting.published import Settings
from harness.statistics.comparison import Interval
from harness.statistics.noise import ENOUGH_SEEDS, MOST_SEEDS

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"
NOT_RUN, NOT_MEASURABLE, NOT_COMPARED = "not run", "not measurable here", "no verdict"
KINDS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_RUN, NOT_MEASURABLE, NOT_COMPARED)

PROTOCOL = "ms_flip"  # of all published figures
ABSENT = "skip"  # mmsegmentation's rule, with which they were made
# Options with which a paper's figures were made, where they are not its method's defaults. Those of pixel contrast are
# with the memory that it proposes: its authors' own without one end at 80.18, where 81.0 is quoted.
CONSTANTS: dict[str, dict[str, Any]] = {"pixel_contrast": {"memory": True}}
# What could not be checked of a method against its paper.
NOT_VERIFIED = {"pixel_contrast_synthetic": "constants of its mixtures not verified, the paper was not at hand"}
# Settings that are not taken as printed (config/paper.yaml says why): {(model, setting): what was used instead}.
ODD: dict[tuple[str, str], float] = {("mobilenet_v2_d8", "weight_decay"): 0.0005}
COMPARED = ("crop", "batch", "iterations", "optimizer", "learning_rate", "momentum", "weight_decay", "policy")


@dataclass(frozen=True)
class Verdict:
    """One of `KINDS` and why, in one line. `further_seeds`: how many more would settle what is inconclusive.

    It is None for other kinds, and where nobody knows or no reasonable number would do; `reason` says which. `luck`:
    what is not reproduced, one pair of runs may still have shown.
    """

    kind: str
    reason: str = ""
    further_seeds: int | None = None
    luck: bool = False


def judge(interval: Interval | None, published_gain: float) -> Verdict:
    """The verdict on a gain that was measured under the published conditions; both gains in percentage points.

    Reproduced: the interval leaves out 0 and contains the published gain (which then has the measured one's sign, and
    is not 0). Not reproduced: it leaves out the published gain, on whichever side. Inconclusive: otherwise, and always
    with fewer than `ENOUGH_SEEDS` pairs of runs or without an interval. An end of the interval belongs to it.

    The interval is about the mean gain, and a published one comes as a rule from one pair of runs: the mean can be
    settled and the published gain still be nothing but such a pair's luck. `Verdict.luck` says so where 95 % of single
    pairs, by the spread that was measured, include it.
    """
    if interval is None:
        return Verdict(INCONCLUSIVE, f"no seed in common with the baseline: {ENOUGH_SEEDS} pairs needed", ENOUGH_SEEDS)
    if interval.low is None or interval.high is None:
        return Verdict(INCONCLUSIVE, f"no interval from a single {interval.unit}")
    if interval.seeds < ENOUGH_SEEDS:
        return _inconclusive(interval, published_gain, f"{interval.seeds} of at least {ENOUGH_SEEDS} seeds; ")
    if not interval.low <= published_gain <= interval.high:
        side = "smaller" if interval.high < published_gain else "larger"
        reach = interval.noise.one_pair(0.05) if interval.noise else None
        if reach is None:
            return Verdict(NOT_REPRODUCED, f"the measured gain is {side} than the published one")
        luck = abs(interval.difference - published_gain) <= reach
        pairs = f"single pairs of runs lie within {reach:.2f} points of the mean"
        told = f"{pairs}, so that one may show the published gain" if luck else f"{pairs}, and so do not show it either"
        return Verdict(NOT_REPRODUCED, f"the measured gain is {side} than the published one; {told}", luck=luck)
    if interval.excludes_zero:
        return Verdict(REPRODUCED, "the interval leaves out 0 and contains the published gain")
    return _inconclusive(interval, published_gain, "the interval contains 0 and the published gain; ")


def _inconclusive(interval: Interval, published_gain: float, why: str) -> Verdict:
    """With the seeds after which 0 or the published gain, whichever is farther away, would be told from the measured.

    That takes the measured gain for the true one; it is itself an estimate from few seeds.
    """
    if interval.noise is None or interval.noise.spread is None:
        least = ENOUGH_SEEDS - interval.seeds
        return Verdict(INCONCLUSIVE, f"{why}at least {least} more needed, of how many one seed cannot say", None)
    farther = max(abs(interval.difference), abs(interval.difference - published_gain))
    more = interval.noise.further_pairs(farther, 1 - interval.confidence)
    if more is None:
        return Verdict(INCONCLUSIVE, f"{why}not even {MOST_SEEDS} seeds would settle it on these images")
    return Verdict(INCONCLUSIVE, f"{why}about {more} more seeds would settle it", more)


def deviations(experiment: Experiment, arm: str, dataset: str, model: str, row: Settings | None) -> list[str]:
    """In what an arm's runs are not what the papers publish, apart from the protocol; empty: a verdict is due.

    `row` are the published training settings of the pair. Settings that the papers do not print are not compared.
    """
    found = arm_deviations(experiment.arms[arm])
    method = experiment.arms[arm].method
    found += [NOT_VERIFIED[method]] if method in NOT_VERIFIED else []
    if experiment.absent != ABSENT:
        found.append(f"absent {experiment.absent}, published with {ABSENT}")
    if row is None:
        return [*found, "the training settings of this pair are not published"]
    return found + [f"{name} {ours}, published {theirs}" for name, ours, theirs in differing(experiment, row)]


def arm_deviations(arm: Arm) -> list[str]:
    """The options in which an arm is not its method as published."""
    if arm.method == EXTERNAL:
        return ["its method is not known here"]
    defaults = discovery.options(arm.method)
    asked, ours = plain(defaults | CONSTANTS.get(arm.method, {})), plain(defaults | arm.options)
    found = [f"{name} {ours[name]}, published {asked[name]}" for name in asked if ours[name] != asked[name]]
    found += [f"starts_at {arm.starts_at}"] if arm.starts_at else []
    return found + ([f"trained {arm.longer:g} times as long"] if arm.longer != 1 else [])


def differing(experiment: Experiment, row: Settings) -> list[tuple[str, str, str]]:
    """The settings in which the experiment differs from a published row, printed oddities aside: name, ours, theirs."""
    schedule = experiment.schedule_of(row.dataset, row.model)
    found = []
    for name in COMPARED:
        ours, theirs = getattr(schedule, name), ODD.get((row.model, name), getattr(row, name))
        momentum_of_adam = name == "momentum" and schedule.optimizer == "adamw"  # it has none of that meaning
        if ours != theirs and not momentum_of_adam:
            found.append((name, setting_text(ours), setting_text(theirs)))
    return found


def setting_text(value: Any) -> str:
    """A setting as tables print it: a crop as HEIGHTxWIDTH."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a method with lists for tuples, as YAML gives them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
