import numpy as np
import pytest
from scipy import stats

from harness.statistics.repeats import repeats


def test_the_shift_and_its_interval_are_those_of_a_paired_t_test():
    random = np.random.default_rng(0)
    arms = {name: random.normal(57, 1, (3, 2)) for name in "abc"}
    found = repeats(arms)
    pairs = np.concatenate(list(arms.values()))
    tested = stats.ttest_rel(pairs[:, 1], pairs[:, 0])
    assert found.n == 9
    assert found.shift == pytest.approx(np.mean(pairs[:, 1] - pairs[:, 0]))
    assert found.shift_interval == pytest.approx(tuple(tested.confidence_interval(0.95)), abs=1e-9)


def test_the_parts_of_the_luck_come_back_from_runs_that_were_made_of_them():
    """A seed's own luck (sd 0.4, the same in both places) and each run's (0.3): 0.3 and 0.5, correlation 0.64."""
    random = np.random.default_rng(1)
    arms = {}
    for arm in range(400):
        seed = random.normal(50 + arm % 7, 0.4, (5, 1))
        arms[str(arm)] = seed + random.normal(0, 0.3, (5, 2)) + np.array([0, 1.5])
    found = repeats(arms)
    assert found.shift == pytest.approx(1.5, abs=0.05)
    assert found.same_seed == pytest.approx(0.3, rel=0.05)
    assert found.across_seeds == pytest.approx(0.5, rel=0.05)
    assert found.correlation == pytest.approx(0.16 / 0.25, abs=0.05)


def test_what_too_few_runs_do_not_tell_is_not_told():
    one = repeats({"a": [(50.0, 51.0)]})
    assert (one.n, one.shift) == (1, 1.0)
    assert one.shift_interval is one.same_seed is one.across_seeds is one.correlation is None
    still = repeats({"a": [(50.0, 51.0), (50.0, 52.0)]})
    assert still.across_seeds == pytest.approx(
        0.5
    )  # 0 in the first place, 0.5 squared in all of two degrees of freedom
    assert still.correlation is None
    with pytest.raises(ValueError, match="made twice"):
        repeats({})
