import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics.student import critical, two_sided

freedoms = st.one_of(st.integers(1, 30), st.integers(31, 5000))
# Nearer to 1, scipy's own inverse is only right to about 3e-8.
levels = st.floats(1e-4, 0.999)


@given(freedoms, st.floats(0, 40))
def test_tails_equal_scipys(freedom, t):
    assert two_sided(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-9, abs=1e-13)


@given(freedoms, st.floats(1e-9, 0.999))
def test_critical_values_equal_scipys(freedom, p):
    assert critical(p, freedom) == pytest.approx(stats.t.isf(p / 2, freedom), rel=1e-6, abs=1e-12)


@given(freedoms, levels)
def test_critical_values_at_levels_in_use_are_exact(freedom, p):
    assert critical(p, freedom) == pytest.approx(stats.t.isf(p / 2, freedom), rel=1e-9, abs=1e-12)


def test_values_from_printed_tables():
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 10: 2.228, 30: 2.042, 120: 1.980}
    assert {freedom: round(critical(0.05, freedom), 3) for freedom in table} == table
    assert critical(1, 5) == 0
    assert two_sided(0, 5) == 1
