import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cost.equivalence import Ratio, drift, rank, ratio


def rounds_of(rng, true_ratio, rounds=30, block=3, noise=0.03):
    """Two arms' samples: a machine whose speed wanders from round to round, noise, and rounds with a disturbance."""
    common = np.exp(np.cumsum(rng.normal(0, 0.02, rounds)))[:, None]
    arms = []
    for factor in (true_ratio, 1.0):
        samples = 1e6 * factor * common * np.exp(rng.normal(0, noise, (rounds, block)))
        samples[rng.random(rounds) < 0.05] *= 3
        arms.append(samples.astype(np.int64))
    return arms


def test_the_interval_holds_the_ratios_between_those_that_the_sign_test_leaves():
    ratios = np.array([1.30, 0.99, 1.01, 1.00, 0.98, 1.02, 0.90, 1.03])
    baseline = np.array([[4.0, 100.0, 1.0], *[[2.0, 3.0, 1.0]] * 7])  # medians 4 and 2
    found = ratio(ratios[:, None] * baseline, baseline)
    # Of 8 rounds none below the median has chance 1/256, at most one 9/256 (3.5 %), at most two 37/256 (14.5 %).
    assert (found.value, found.low, found.high) == pytest.approx((1.005, 0.98, 1.03))


@pytest.mark.parametrize("rounds", range(5, 15))
def test_the_rank_leaves_five_percent_of_all_sign_patterns_on_each_side(rounds):
    below = np.array([bin(pattern).count("1") for pattern in range(2**rounds)])
    k = rank(rounds)
    assert k >= 1
    assert (below < k).mean() <= 0.05 < (below < k + 1).mean()


def test_the_rank_is_exact_for_many_rounds():
    assert rank(30) == 11  # tables of the sign test
    assert rank(2000) == pytest.approx(1000 - 1.645 * np.sqrt(2000) / 2, abs=1)


def test_what_a_round_does_to_both_arms_cancels():
    speed = np.random.default_rng(0).uniform(1, 5, (20, 1))
    found = ratio(1.5e6 * speed * np.ones((20, 4)), 1e6 * speed * np.ones((20, 4)))
    assert (found.value, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))


@pytest.mark.parametrize("true_ratio", [1.0, 1.1])
def test_the_interval_covers_the_true_ratio_as_often_as_it_says(true_ratio):
    rng, trials = np.random.default_rng(2), 400
    covered = 0
    for _ in range(trials):
        found = ratio(*rounds_of(rng, true_ratio))
        covered += found.low <= true_ratio <= found.high
    assert 0.86 <= covered / trials <= 0.95  # 90.1 % with 30 rounds, within three standard errors


def test_a_difference_of_the_margin_is_called_equivalent_in_at_most_one_of_twenty():
    rng, trials = np.random.default_rng(3), 300
    called = sum(ratio(*rounds_of(rng, 1.02, noise=0.01)).equivalent for _ in range(trials))
    assert called / trials < 0.08  # 5 %, three standard errors above
    assert sum(ratio(*rounds_of(rng, 1.0, noise=0.005)).equivalent for _ in range(50)) > 45


def test_disturbed_rounds_widen_a_t_interval_more():
    rng = np.random.default_rng(4)
    wider = 0
    for _ in range(50):
        arm, baseline = rounds_of(rng, 1.0)
        logs = np.log(np.median(arm, axis=1) / np.median(baseline, axis=1))
        half = 1.699 * logs.std(ddof=1) / np.sqrt(30)  # t of 29 degrees of freedom at 95 %
        found = ratio(arm, baseline)
        wider += 2 * half > np.log(found.high / found.low)
    assert wider > 35


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        *((low, high, "equivalent within 2 %") for low, high in ((0.98, 1.02), (0.999, 1.001))),
        *((low, high, "not shown") for low, high in ((0.979, 1.0), (1.0, 1.021), (0.9, 1.1), (1.02, 1.5), (0.5, 0.98))),
        *((low, high, "slower by more than 2 %") for low, high in ((1.021, 1.03), (1.5, 1.5))),
        *((low, high, "faster by more than 2 %") for low, high in ((0.7, 0.979), (0.5, 0.5))),
    ],
)
def test_the_verdict_is_of_the_whole_interval_beside_the_margin(low, high, verdict):
    found = Ratio(1.0, low, high)
    assert found.verdict == verdict
    assert found.equivalent is verdict.startswith("equivalent")


def test_arms_of_other_rounds_or_too_few_are_refused():
    with pytest.raises(ValueError, match="not 6 and 7"):
        ratio(np.ones((6, 2)), np.ones((7, 2)))
    with pytest.raises(ValueError, match="same number of rounds, at least 5"):
        ratio(np.ones((4, 2)), np.ones((4, 2)))


@given(st.floats(0.2, 5), st.integers(3, 40), st.integers(1, 4))
def test_drift_is_the_factor_between_the_first_and_the_last_third(factor, rounds, block):
    speed = np.ones((rounds, 1))
    speed[-(rounds // 3) :] = factor
    samples = {name: base * speed * np.ones((rounds, block)) for name, base in (("a", 1e6), ("b", 7e6))}
    assert drift(samples) == pytest.approx(factor)


def test_one_disturbed_round_is_no_drift():
    samples = np.full((12, 2), 1e6)
    samples[-1] *= 10
    assert drift({"a": samples, "b": samples}) == pytest.approx(1)
