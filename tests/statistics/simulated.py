"""Simulated benchmarks with known truth: scores of runs, and the same on resampled test sets."""

from dataclasses import dataclass

import numpy as np

UNITS, RESAMPLES = 24, 300  # CamVid's blocks of frames


@dataclass(frozen=True)
class World:
    """Standard deviations in points: of a run over seeds, and of an arm's mean over test sets.

    The committed records of CamVid on the GPU have 0.56 and 0.14, which is 0.2 in a difference.
    """

    seeds: float = 0.56
    images: float = 0.2 / 2**0.5
    own: float = 0.5  # share of a run's variance that it has from its luck with single images


def weights(rng, units=UNITS, resamples=RESAMPLES):
    """How often every unit is drawn, [R, U]."""
    return rng.multinomial(units, np.full(units, 1 / units), resamples)


def table(rng, effects, runs=3, baseline_runs=6, world=World(), scatter=None, drawn=None):
    """One experiment: the baseline's scores, {arm: scores}, {arm or None: resampled scores [runs, R]}.

    `effects` are the arms' true gains in points; `scatter` multiplies the standard deviation over seeds of an arm, or
    of the baseline (None).
    """
    drawn = weights(rng) if drawn is None else drawn
    units = drawn.shape[1]
    scores, resampled = {}, {}
    for arm in (None, *range(len(effects))):
        number = baseline_runs if arm is None else runs
        sd = world.seeds * (scatter or {}).get(arm, 1.0)
        effect = 0.0 if arm is None else effects[arm]
        of_unit = effect + rng.normal(0, world.images * units**0.5, units)
        everywhere = rng.normal(0, sd * (1 - world.own) ** 0.5, (number, 1))
        on_unit = rng.normal(0, sd * (world.own * units) ** 0.5, (number, units))
        values = of_unit + everywhere + on_unit
        scores[arm] = values.mean(1)
        resampled[arm] = values @ drawn.T / units
    return scores.pop(None), scores, resampled
