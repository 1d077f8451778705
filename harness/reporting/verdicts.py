"""Whether a published gain over a baseline was found again: is there a gain, and may it be the published one?"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from harness.experiment.schema import Arm, Experiment, discovery
from harness.reporting.published import not_verified
from harness.runs.external_arms import EXTERNAL
from harness.statistics.interval import Gain

CONFIRMED, SMALLER, LARGER = "confirmed", "gain, but smaller", "gain, but larger"
CONTRADICTED, OPEN = "contradicted", "open"
NOT_RUN, NOT_MEASURABLE, NOT_COMPARED = "not run", "not measurable here", "no verdict"
KINDS = (CONFIRMED, SMALLER, LARGER, CONTRADICTED, OPEN, NOT_RUN, NOT_MEASURABLE, NOT_COMPARED)
COMPARED = ("crop", "batch", "iterations", "optimizer", "learning_rate", "momentum", "weight_decay", "policy")
AGREES, ODDITY, DIFFERS = "yes", "printed oddity", "no"

Row = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One of `KINDS` and why, in one line. `visible`: of an open one, the gain in points that so many seeds would see.

    It is None for other kinds, and if there is no interval.
    """

    kind: str
    reason: str = ""
    visible: float | None = None


def judge(gain: Gain | None, published: float) -> Verdict:
    """The verdict on a gain that was measured under the published conditions; both gains in percentage points.

    Two questions: is there a gain (the interval is on the published one's side of 0), and is the published one
    compatible with it? A published gain comes as a rule from one pair of runs, so it is compatible if it is within
    the 95 % prediction interval of one more pair (`Gain.one_pair`). Both: confirmed. A gain alone: smaller or larger
    than published. Neither: contradicted. Compatible alone: open.
    """
    if gain is None or gain.low is None or gain.high is None or gain.one_pair is None:
        return Verdict(OPEN, "no interval: two runs or more of the arm and of the baseline are needed")
    side = -1.0 if published < 0 else 1.0
    away = abs(gain.difference - published)
    compatible = away <= gain.one_pair
    reach = f"{away:.2f} points from the published gain, {gain.one_pair:.2f} are within the luck of one pair of runs"
    if gain.excludes_zero and side * gain.difference > 0:
        if compatible:
            return Verdict(CONFIRMED, reach)
        return Verdict(SMALLER if side * gain.difference < side * published else LARGER, reach)
    found = "the measured difference has the other sign" if gain.excludes_zero else "no gain can be told from 0"
    if not compatible:
        return Verdict(CONTRADICTED, f"{found}; {reach}")
    return Verdict(OPEN, f"{found}; so many seeds would see a gain of {gain.visible:.2f} points", gain.visible)


def default_options(experiment: Experiment) -> dict[str, Row]:
    """The default options of the methods of an experiment's arms, read once: their files are looked at every time."""
    methods = {arm.method for arm in experiment.arms.values()} - {EXTERNAL}
    return {
        method: {field.name: field.default for field in fields(discovery.options_class(method))} for method in methods
    }


def deviations(
    experiment: Experiment,
    defaults: Mapping[str, Row],
    arm: str,
    settings: Row | None,
    options: Mapping[str, Any],
    absent: str,
) -> list[str]:
    """In what an arm's runs are not what the papers publish, apart from the protocol; empty: a verdict is due.

    `defaults` are `default_options`, `settings` the published training settings of a pair, `options` those of the
    method that are not its defaults, `absent` the rule for absent classes. Settings that the papers do
    not print are not compared.
    """
    found = arm_deviations(experiment.arms[arm], defaults, options)
    found += [text] if (text := not_verified(experiment.arms[arm].method)) else []
    found += [f"absent {experiment.absent}, published with {absent}"] if experiment.absent != absent else []
    if settings is None:
        return [*found, "the training settings of this pair are not published"]
    compared = [row for row in compared_settings(experiment, settings) if row["agrees"] == DIFFERS]
    return found + [f"{row['setting']} {row['ours']}, published {row['expected']}" for row in compared]


def arm_deviations(arm: Arm, defaults: Mapping[str, Row], options: Mapping[str, Any]) -> list[str]:
    """In what an arm is not its method with these options and otherwise the defaults, trained once from the start."""
    if arm.method == EXTERNAL:
        return ["its method is not known here"]
    default = defaults[arm.method]
    asked, ours = _plain({**default, **options}), _plain(default | arm.options)
    found = [f"{name} {ours.get(name)}, published {asked[name]}" for name in asked if ours.get(name) != asked[name]]
    found += [f"starts_at {arm.starts_at}"] if arm.starts_at else []
    found += [f"ends_at {arm.ends_at}"] if arm.ends_at != 1 else []
    found += [f"trained as long as {arm.compute_of} takes"] if arm.compute_of is not None else []
    return found + ([f"trained {arm.longer:g} times as long"] if arm.longer != 1 else [])


def compared_settings(experiment: Experiment, settings: Row) -> list[Row]:
    """Each of the settings that the papers print with the experiment's `ours`, and whether it `agrees`.

    An oddity differs from what is printed but not from what is `expected` instead.
    """
    schedule = experiment.schedule_of(settings["dataset"], settings["model"])
    found = []
    for name in COMPARED:
        ours, printed = getattr(schedule, name), settings[name]
        expected = settings["instead"].get(name, printed)
        if name == "momentum" and schedule.optimizer == "adamw":  # which has none of that meaning
            expected = ours
        agrees = DIFFERS if ours != expected else AGREES if ours == printed else ODDITY
        texts = {"published": _text(printed), "ours": _text(ours), "expected": _text(expected)}
        found.append({**settings, "setting": name, "agrees": agrees} | texts)
    return found


def _text(value: Any) -> str:
    """A setting as tables print it: a crop as HEIGHTxWIDTH."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _plain(options: Mapping[str, Any]) -> Row:
    """Options of a method with lists for tuples, as YAML gives them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
