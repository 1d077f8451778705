"""The worked example of docs/metrics.md, parsed from the page and computed again, twice: plainly and by the harness."""

import re

import numpy as np
import pytest

from harness.evaluation.counts import count_image
from harness.statistics.scores import iou, score

CLASSES = "abcd"
RULES = ("skip", "zero", "require_ground_truth")


@pytest.fixture
def page(repository):
    return (repository / "docs/metrics.md").read_text().partition("worked example")[2].partition("## The metrics")[0]


@pytest.fixture
def maps(page):
    """Ground truth and prediction, uint8 [6, 6]."""
    rows = re.findall(r"^    ((?:[a-d.] ){5}[a-d.]) +((?:[a-d] ){5}[a-d])$", page, re.MULTILINE)
    values = dict(zip("abcd.", (0, 1, 2, 3, 255), strict=True))
    truth, guess = (np.array([[values[each] for each in row[i].split()] for row in rows], np.uint8) for i in (0, 1))
    assert truth.shape == guess.shape == (6, 6)
    return truth, guess


@pytest.fixture
def rows(page):
    """The cells of every line of the page's tables, without headings."""
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in page.splitlines() if line[:1] == "|"]
    return [line for line in lines if line[0] not in ("counts", "score", ":--")]


def near(mask, others, frame):
    """Which pixels of `mask` touch `others`, by looking at all nine places around each; `frame`: or lie at the edge."""
    found = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        for y in range(row - 1, row + 2):
            for x in range(column - 1, column + 2):
                outside = not (0 <= y < 6 and 0 <= x < 6)
                found[row, column] |= frame if outside else others[y, x]
    return found


def plain_counts(truth, guess, kind, c):
    guess = np.where(truth == 255, 255, guess)
    true, guessed = truth == c, guess == c
    if kind == "boundary@1px":
        true, guessed = near(true, ~true, frame=True), near(guessed, ~guessed, frame=True)
    if kind == "trimap@1px":
        edge = np.any([near(truth == each, truth != each, frame=False) for each in range(4)], axis=0)
        true, guessed = true & edge, guessed & edge
    return [int((true & guessed).sum()), int((guessed & ~true).sum()), int((true & ~guessed).sum())]


def test_the_counts_on_the_page_are_those_of_the_definitions_and_of_the_harness(maps, rows):
    truth, guess = maps
    tables = count_image(guess, truth, len(CLASSES), ("1px",))
    counts = [row for row in rows if row[0] in tables]
    assert len(counts) == 4 * len(CLASSES)
    for kind, name, *told, percent in counts:
        c = CLASSES.index(name)
        # Every object is smaller than 16x16, so objects@tiny is the region.
        assert [int(each) for each in told] == plain_counts(truth, guess, kind, c) == tables[kind][c].tolist()
        value = iou(tables[kind])[c]
        assert percent == ("-" if np.isnan(value) else f"{value:.2f}")


def test_the_scores_on_the_page_are_the_harness_own(maps, rows):
    truth, guess = maps
    tables = {name: table[None] for name, table in count_image(guess, truth, len(CLASSES), ("1px",)).items()}
    told = {row[0]: row[1:] for row in rows if len(row) == 4}
    scores = [score(tables, CLASSES, rule)[0] for rule in RULES]
    empty = {f"miou_objects_{size}" for size in ("small", "medium", "large")}
    assert set(told) == set(scores[0]) - empty
    for metric, values in told.items():
        assert values == [f"{of_rule[metric]:.2f}" for of_rule in scores], metric


def test_the_scores_on_the_page_follow_from_its_counts_by_hand(rows):
    told = {row[0]: [float(each) for each in row[1:]] for row in rows if len(row) == 4}
    assert told["miou"] == pytest.approx([100 * (17 / 21 + 14 / 17) / classes for classes in (3, 4, 2)], abs=0.005)
    assert told["pixel_accuracy"] == pytest.approx([100 * 31 / 35] * 3, abs=0.005)
    assert told["mean_accuracy"] == pytest.approx([100 * (17 / 18 + 14 / 17) / n for n in (2, 4, 2)], abs=0.005)
    assert told["fwiou"] == pytest.approx([100 * (18 * 17 / 21 + 17 * 14 / 17) / 35] * 3, abs=0.005)
    assert told["mean_dice"] == pytest.approx([100 * (34 / 38 + 28 / 31) / n for n in (3, 4, 2)], abs=0.005)
    assert told["boundary_miou@1px"] == pytest.approx([100 * (12 / 18 + 11 / 16) / n for n in (3, 4, 2)], abs=0.005)
    assert told["trimap_miou@1px"] == pytest.approx([100 * (6 / 9 + 6 / 9) / n for n in (2, 4, 2)], abs=0.005)


def test_no_answer_is_wrong_and_they_span_40_points(page, rows):
    told = next(row for row in rows if row[0] == "miou")
    lowest, *_, highest = sorted(round(float(each)) for each in told[1:])
    assert f"mIoU of {lowest}, 54 or {highest}" in page
