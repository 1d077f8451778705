"""Student's t distribution with a whole number of degrees of freedom, in closed form.

With theta = atan(t / sqrt(freedom)), P(|T| <= t) is a finite sum of powers of cos(theta): Abramowitz and Stegun,
Handbook of Mathematical Functions, 26.7.3 (odd) and 26.7.4 (even). Absolute errors stay below 1e-13.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def two_sided(t: float, freedom: int) -> float:
    """P(|T| > t) for t >= 0."""
    return max(0.0, 1 - _inside(math.atan(t / math.sqrt(freedom)), freedom))


@lru_cache(maxsize=1024)
def critical(p: float, freedom: int) -> float:
    """The t that |T| exceeds with probability `p`, 0 < p <= 1."""
    # P(|T| <= t) is concave in theta, so Newton's steps from 0 approach the root from below.
    theta = 0.0
    area = _normaliser(freedom)
    while (step := (1 - p - _inside(theta, freedom)) * area / math.cos(theta) ** (freedom - 1)) > 1e-15:
        theta += step
    return math.sqrt(freedom) * math.tan(theta)


def _inside(theta: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(theta))."""
    cosine, sine = math.cos(theta), math.sin(theta)
    if freedom == 1:
        return 2 / math.pi * theta
    terms = float((_coefficients(freedom) * (cosine * cosine) ** np.arange(freedom // 2)).sum())
    return sine * terms if freedom % 2 == 0 else 2 / math.pi * (theta + sine * cosine * terms)


@lru_cache(maxsize=64)
def _coefficients(freedom: int) -> NDArray[np.float64]:
    """1, 1/2, 1 3 / 2 4, ... for even degrees of freedom, 1, 2/3, 2 4 / 3 5, ... for odd ones."""
    first = np.arange(1 + freedom % 2, freedom - 2, 2)
    return np.cumprod(np.concatenate([[1.0], first / (first + 1)]))


@lru_cache(maxsize=64)
def _normaliser(freedom: int) -> float:
    """The integral of cos^(freedom - 1) from 0 to pi / 2: its inverse is the density of theta at 0."""
    return math.sqrt(math.pi) / 2 * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
