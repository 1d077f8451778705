"""The page as a person meets it, in a real browser: by mouse and by keyboard, on a desk and on a phone."""

import cv2
import numpy as np
import pandas as pd
import pytest
from browser import CHROMIUM, browsing

from harness.reporting.measured import measure
from harness.reporting.page import write_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"),
]

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>&\"'"
WIDE, PHONE = 1280, 390


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(make_experiment, write_run, write_predictions, tmp_path):
    """A page with all that there can be: numbers and holes, a published table, figures, and examples of two arms."""
    experiment = make_experiment(datasets=["tiny"], seeds=[0, 1])
    write_predictions(experiment, tmp_path, "plain", "rival_one")
    write_run(experiment, tmp_path, "cross_entropy", 0, dataset="tiny", status="diverged", reason=f"not finite {EVIL}")
    report = tmp_path / "reports" / "little"
    for folder in ("figures", "tables"):
        (report / folder).mkdir(parents=True)
    for name in ("miou", "training"):
        cv2.imwrite(str(report / f"figures/{name}.png"), np.full((600, 2160, 3), 200, np.uint8))
    (report / "tables/papers_verdicts.csv").write_text("table,verdict,gains\nmain,confirmed,2\n")
    claims = []
    for model, verdict in ((EVIL, "confirmed"), ("b", "contradicted"), ("c", "not run")):
        claims.append(
            {"dataset": "tiny", "model": model, "method": "M", "setting": "", "metric": "mIoU", "reading": ""}
            | {"protocol": "whole", "published": 71.5, "published_gain": 1.25, "measured_dataset": "tiny"}
            | {"measured_model": "lite0_fpn", "arm": "plain", "runs": 3, "mean": 70.0, "gain": 1.5, "low": 0.5}
            | {"high": 2.5, "verdict": verdict, "gain_visible": "", "reason": "why", "source": "table III"}
        )
    pd.DataFrame(claims).to_csv(report / "tables/papers_main.csv", index=False)
    return write_page(experiment, tmp_path, measure(experiment, tmp_path))


def column(browser, table, heading):
    """The values of a column of the rows that are shown: as they sort, or as they read."""
    return browser.run(
        f"""(() => {{
          const table = document.getElementById({table!r});
          const place = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.trim() === {heading!r});
          return [...table.tBodies[0].rows].filter((row) => !row.hidden)
            .map((row) => row.cells[place].dataset.value ?? row.cells[place].textContent.trim());
        }})()"""
    )


def focus(browser, selector):
    browser.run(f"document.querySelector({selector!r}).focus()")


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_it_opens_from_a_file_without_a_network_and_without_a_complaint(browser, page, width):
    browser.open(page, width)
    assert browser.complaints == []
    assert {address.split(":")[0] for address in browser.requests} <= {"file", "data"}
    assert browser.run("matchMedia('(max-width: 500px)').matches") == (width == PHONE)


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_the_body_is_no_wider_than_the_window(browser, page, width):
    browser.open(page, width)
    browser.run("document.querySelectorAll('details').forEach((each) => each.open = true)")
    assert browser.run("innerWidth") == width
    assert browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert browser.run("Math.round(document.body.getBoundingClientRect().right)") <= width


def test_every_image_loads(browser, page):
    browser.open(page)
    widths = browser.image_widths()
    assert len(widths) > 2 + 3 * 4  # two figures, and of three examples image and truth with their windows, and more
    assert all(width > 0 for width in widths)


def test_names_are_text(browser, page):
    browser.open(page)
    assert browser.run("document.scripts.length") == 2
    assert browser.run("document.querySelectorAll('[onerror], [src=x]').length") == 0
    assert f"not finite {EVIL}" in column(browser, "runs-all", "Reason")
    assert EVIL in column(browser, "papers-main", "Model")
    assert browser.complaints == []


def test_a_heading_sorts_by_number_and_by_name_and_holes_stay_last(browser, page):
    browser.open(page)
    before = column(browser, "miou", "Mean (%)")
    focus(browser, "#miou thead th.number button")
    browser.press("Enter")
    up = column(browser, "miou", "Mean (%)")
    browser.press("Enter")
    down = column(browser, "miou", "Mean (%)")
    numbers = [float(value) for value in up if value.replace(".", "", 1).isdigit()]
    assert len(set(numbers)) > 1
    assert [float(value) for value in up[: len(numbers)]] == sorted(numbers)
    assert [float(value) for value in down[: len(numbers)]] == sorted(numbers, reverse=True)
    holes = len(before) - len(numbers)
    assert holes > 0
    assert not any(character.isdigit() for value in [*up[-holes:], *down[-holes:]] for character in value)
    assert sorted(before) == sorted(up) == sorted(down)
    assert browser.run("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"

    focus(browser, "#runs-all thead button")
    browser.press(" ")
    assert column(browser, "runs-all", "Arm") == sorted(column(browser, "runs-all", "Arm"))


def test_words_filter_the_rows(browser, page):
    browser.open(page)
    everything = column(browser, "runs-all", "Arm")
    focus(browser, "#runs-all-filter")
    browser.press(*"rival done")
    assert column(browser, "runs-all", "Arm") == ["rival one"]
    assert browser.run("document.getElementById('runs-all-shown').textContent") == f"1 of {len(everything)} rows"
    browser.run("document.getElementById('runs-all-filter').value = ''")
    browser.press("x", "x")
    assert column(browser, "runs-all", "Arm") == []
    browser.press("Escape")  # of a search box: it is empty again
    assert column(browser, "runs-all", "Arm") == everything


def test_a_number_tells_its_runs_by_keyboard_and_gives_the_focus_back(browser, page):
    browser.open(page)
    focus(browser, "#miou button[data-runs]")
    browser.press("Enter")
    assert browser.run("document.getElementById('provenance').open")
    assert "runs/little/tiny/lite0_fpn" in browser.run("document.getElementById('provenance-runs').textContent")
    assert browser.run("document.activeElement.textContent") == "Close"
    browser.press("Escape")
    assert not browser.run("document.getElementById('provenance').open")
    assert browser.run("document.activeElement.matches('#miou button[data-runs]')")


def test_the_arrow_keys_choose_the_arm_of_the_examples(browser, page):
    browser.open(page)
    shown = (
        "[...new Set([...document.querySelectorAll('[data-arm]')].filter((each) => !each.hidden)"
        ".map((each) => each.dataset.arm))]"
    )
    first = browser.run(shown)
    focus(browser, "fieldset input[type=radio]")
    browser.press("ArrowDown")
    second = browser.run(shown)
    assert len(first) == len(second) == 1
    assert first != second


def test_tab_reaches_everything_in_order_and_shows_where_it_is(browser, page):
    browser.open(page)
    expected = browser.run(
        """(() => {
          const all = [...document.querySelectorAll("a[href], button, input, summary, [tabindex='0']")];
          all.filter((each) => each.closest("dialog") === null && each.checkVisibility()
            && (each.type !== "radio" || each.checked)).forEach((each, place) => each.dataset.place = place);
          return document.querySelectorAll("[data-place]").length;
        })()"""
    )
    seen = []
    for _ in range(expected):
        browser.press("Tab")
        place = browser.run("Number(document.activeElement.dataset.place ?? -1)")
        outline = browser.run("getComputedStyle(document.activeElement).outlineWidth")
        seen.append(place)
        assert float(outline.removesuffix("px")) >= 2
    assert expected > 20
    assert seen == list(range(expected))


CONTRASTS = """(() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([red, green, blue]) => {
    const linear = [red, green, blue].map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = parts(getComputedStyle(each).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
      if (color[3] > 0) throw new Error("a ground that shows what is behind it");
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body, body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const styles = [text || element.matches("input") ? getComputedStyle(element) : null];
    if (element.matches("thead button")) styles.push(getComputedStyle(element, "::after"));
    if (!element.checkVisibility() || element.matches("script, style")) continue;
    for (const style of styles.filter(Boolean)) {
      const [ink, paper] = [luminance(parts(style.color)), luminance(ground(element))];
      const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
      found.push([ratio, style.color, element.tagName + "." + element.className]);
    }
  }
  return found;
})()"""


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_every_text_stands_out_from_its_ground(browser, page, width):
    browser.open(page, width)
    browser.run("document.querySelectorAll('details').forEach((each) => each.open = true)")
    browser.run("document.querySelector('#miou button[data-runs]').click()")
    found = browser.run(CONTRASTS)
    assert {"STRONG.", "FIGCAPTION.", "TD.better", "TD.worse", "DT.", "INPUT."} <= {where for *_, where in found}
    assert len({color for _, color, _ in found}) >= 4
    faint = [each for each in found if each[0] < 4.5]  # WCAG 2.2, 1.4.3, level AA
    assert faint == []
