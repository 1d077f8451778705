"""Which arms of an experiment are trained equally long: each length is a separate comparison."""

import json
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass

from harness.errors import UserError
from harness.experiment import discovery
from harness.experiment.schema import Experiment
from harness.runs.external_arms import EXTERNAL


@dataclass(frozen=True)
class Length:
    """The arms of one number of iterations: that of the baseline's method, and those that are held against it.

    Both by the first arm of the same method and options in the experiment, whatever it is called at this length.
    """

    iterations: int
    baseline: str
    rivals: dict[str, str]

    @property
    def arms(self) -> list[str]:
        """All of them, the baseline first."""
        return [self.baseline, *self.rivals.values()]


def lengths(experiment: Experiment, dataset: str, model: str) -> list[Length]:
    """The numbers of iterations at which the baseline's method and another one are trained, ascending.

    Empty if there are fewer than two: then there is no question. Imports nothing heavy.
    """
    first: dict[str, str] = {}
    found: dict[int, dict[str, str]] = defaultdict(dict)
    for name in sorted(experiment.arms, key=lambda name: name != experiment.baseline):
        arm = experiment.arms[name]
        if arm.method == EXTERNAL:  # trained elsewhere
            continue
        kind = json.dumps([arm.method, discovery.options(arm.method, arm.options), arm.starts_at], sort_keys=True)
        with suppress(UserError):  # an arm of equal compute whose ratio was not measured yet
            iterations = experiment.schedule_of(dataset, model, name).iterations
            found[iterations].setdefault(first.setdefault(kind, name), name)
    compared = [
        Length(iterations, arms[experiment.baseline], {key: arms[key] for key in arms if key != experiment.baseline})
        for iterations, arms in sorted(found.items())
        if experiment.baseline in arms and len(arms) > 1
    ]
    return compared if len(compared) > 1 else []
