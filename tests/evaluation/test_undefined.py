"""A test split without a labelled pixel has no score, and everything says so instead of failing."""

import numpy as np

from harness.checks.reproduce import Comparison
from harness.cli.common import percent
from harness.evaluation.counts import Counts, count_image, stack
from harness.evaluation.record import scores_of


def test_scores_without_a_labelled_pixel_are_none_and_printed_as_undefined():
    label = np.full((4, 6), 255, np.uint8)
    counts = Counts(["a"], ("sky", "road"), {"whole": stack([count_image(np.zeros_like(label), label, 2)])})
    scores = scores_of(counts, "skip")["scores"]["whole"]
    assert scores["miou"] is None
    assert percent(scores["miou"]).startswith("undefined")
    assert percent(11.106) == "11.11"


def test_undefined_scores_reproduce_undefined_scores_alone(tmp_path):
    nan = float("nan")
    for then, now, passed in ((nan, nan, True), (nan, 50.0, False), (50.0, nan, False), (50.0, 50.0, True)):
        found = Comparison(tmp_path, {"whole": (then, now)}, ["the machine"], same_bits=False)
        assert found.passed is passed
