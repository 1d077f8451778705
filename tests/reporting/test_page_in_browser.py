"""The page as a person meets it, in a real browser: by mouse and by keyboard, on a desk and on a phone."""

import matplotlib as mpl
import pandas as pd
import pytest
from browser import CHROMIUM, browsing
from matplotlib.figure import Figure
from tiny_data_set import write_tiny

from harness import datasets
from harness.reporting.figures.style import STYLE, save
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


@pytest.fixture(scope="module")
def page(experiment_in, write_run, predictions_of, tmp_path_factory):
    """A page with all that there can be: numbers and holes, a published table, figures, and examples of two arms."""
    folder = tmp_path_factory.mktemp("page")
    root, described = write_tiny(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "FOLDER", described)
        patch.setenv("TINY_ROOT", str(root))
        experiment = experiment_in(folder, datasets=["tiny"], seeds=[0, 1])
        predictions_of(datasets.load("tiny", root), experiment, folder, "plain", "rival_one")
        hole = {"status": "diverged", "reason": f"not finite {EVIL}"}
        write_run(experiment, folder, "cross_entropy", 0, dataset="tiny", **hole)
        add_figures_and_published_table(folder / "reports" / "little")
        return write_page(experiment, folder, measure(experiment, folder))


def add_figures_and_published_table(report):
    for folder in ("figures", "tables"):
        (report / folder).mkdir(parents=True)
    arms = ("plain", "cross_entropy", "rival_one")  # the first is the baseline
    for name in ("latency", "training", "embeddings_tiny_lite0_fpn"):
        figure = Figure((7.2, 2))
        for axis, arm in zip(figure.subplots(len(arms)), arms, strict=True):
            axis.plot([0, 1], gid=f"arm={arm}")
            axis.set_gid(f"row={arm}" if name.startswith("embeddings") else None)
        figure.text(0.1, 0.5, name, color="0.4")
        with mpl.rc_context(STYLE):
            save(figure, report / "figures" / name)
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


@pytest.mark.parametrize(("width", "height"), [(WIDE, 900), (PHONE, 844)])
def test_the_page_is_short_and_the_first_screen_holds_the_answer_and_the_table(browser, page, width, height):
    browser.open(page, width, height)
    assert browser.run("document.documentElement.scrollHeight") < 5 * height
    bottom = "document.querySelector({!r}).getBoundingClientRect().bottom".format
    assert browser.run(bottom(".answer")) < height
    assert browser.run(bottom("#board-0 tbody tr:last-child")) < height


def test_on_a_phone_the_gain_is_there_without_scrolling_and_names_stay_at_the_side(browser, page):
    browser.open(page, PHONE, 844)
    gain = browser.run("document.querySelector('#board-0 td.gain:has(svg)').getBoundingClientRect().right")
    assert gain <= PHONE
    browser.run("document.querySelector('#board-0').parentElement.scrollLeft = 500")
    assert browser.run("document.querySelector('#board-0').parentElement.scrollLeft") > 0
    assert 0 <= browser.run("document.querySelector('#board-0 tbody th').getBoundingClientRect().left") < 30


def test_every_image_loads(browser, page):
    browser.open(page)
    widths = browser.image_widths()
    assert len(widths) == 3 * 2 * 2  # of three images two arms, what they predict and what is wrong of it
    assert all(width > 0 for width in widths)
    sizes = browser.run(
        "[...document.querySelectorAll('.layers')].map((e) => [e.offsetWidth, e.offsetHeight])"
        ".filter(([width]) => width > 0)"
    )
    assert sizes
    assert all(height > 0 for _, height in sizes)


def test_names_are_text(browser, page):
    browser.open(page)
    assert browser.run("document.scripts.length") == 2
    assert browser.run("document.querySelectorAll('[onerror], [src=x]').length") == 0
    assert f"not finite {EVIL}" in column(browser, "runs-all", "Reason")
    assert EVIL in column(browser, "papers-main", "Network")
    assert browser.complaints == []


def test_a_heading_sorts_by_number_and_by_name_and_holes_stay_last(browser, page):
    browser.open(page)
    before = column(browser, "board-0", "mIoU (%)")
    focus(browser, "#board-0 thead th.number button")
    browser.press("Enter")
    up = column(browser, "board-0", "mIoU (%)")
    browser.press("Enter")
    down = column(browser, "board-0", "mIoU (%)")
    numbers = [float(value) for value in up if value.replace(".", "", 1).isdigit()]
    assert len(set(numbers)) > 1
    assert [float(value) for value in up[: len(numbers)]] == sorted(numbers)
    assert [float(value) for value in down[: len(numbers)]] == sorted(numbers, reverse=True)
    holes = len(before) - len(numbers)
    assert holes > 0
    assert not any(character.isdigit() for value in [*up[-holes:], *down[-holes:]] for character in value)
    assert sorted(before) == sorted(up) == sorted(down)
    assert browser.run("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"

    browser.run("document.querySelector('#runs-table').open = true")
    focus(browser, "#runs-all thead button")
    browser.press(" ")
    assert column(browser, "runs-all", "Arm") == sorted(column(browser, "runs-all", "Arm"), key=str.lower)


def test_words_filter_the_rows_and_an_empty_table_says_so(browser, page):
    browser.open(page)
    browser.run("document.querySelector('#edges').open = true")
    everything = column(browser, "boundary", "Arm")
    focus(browser, "#boundary-filter")
    browser.press(*"Rival trimap 3px")
    assert column(browser, "boundary", "Arm") == ["rival one"]
    shown = "document.getElementById('boundary-shown').textContent"
    assert browser.run(shown) == f"1 of {len(everything)} rows"
    browser.run("document.getElementById('boundary-filter').value = ''")
    browser.press("q", "q")
    assert column(browser, "boundary", "Arm") == []
    assert browser.run(shown) == "no row holds “qq”"
    browser.press("Escape")  # of a search box: it is empty again
    assert column(browser, "boundary", "Arm") == everything


def test_sorting_goes_back_to_the_first_row(browser, page):
    browser.open(page)
    browser.run("document.querySelector('#runs-table').open = true")
    frame = "document.getElementById('runs-all').parentElement"
    browser.run(f"{frame}.style.maxHeight = '5rem'")
    browser.run(f"{frame}.scrollTop = 60")
    assert browser.run(f"{frame}.scrollTop") > 0
    focus(browser, "#runs-all thead button")
    browser.press("Enter")
    assert browser.run(f"{frame}.scrollTop") == 0


def test_a_number_tells_its_runs_by_keyboard_and_gives_the_focus_back(browser, page):
    browser.open(page)
    focus(browser, "#board-0 button[data-runs]")
    browser.press("Enter")
    assert browser.run("document.getElementById('provenance').open")
    assert "runs/little/tiny/lite0_fpn" in browser.run("document.getElementById('provenance-runs').textContent")
    assert browser.run("document.activeElement.textContent") == "Close"
    browser.press("Escape")
    assert not browser.run("document.getElementById('provenance').open")
    assert browser.run("document.activeElement.matches('#board-0 button[data-runs]')")


SHOWN = "[...document.querySelectorAll('[data-image]')].findIndex((each) => !each.hidden)"


def test_keys_go_through_the_examples(browser, page):
    browser.open(page)
    assert browser.run(SHOWN) == 0
    focus(browser, ".compare")
    browser.press("n")
    assert browser.run(SHOWN) == 1
    assert browser.run("document.querySelector('.compare output').textContent") == "2 of 3"
    browser.press("p", "p")
    assert browser.run(SHOWN) == 2  # around the corner
    truth = "[...document.querySelectorAll('.truth')].map((each) => getComputedStyle(each).opacity)"
    assert set(browser.run(truth)) == {"0"}
    browser.press("t")
    assert set(browser.run(truth)) == {"1"}
    assert browser.run("document.querySelector('[data-truth]').getAttribute('aria-pressed')") == "true"
    browser.press("t")
    assert set(browser.run(truth)) == {"0"}


def test_a_slider_lays_the_errors_over_the_pictures(browser, page):
    browser.open(page)
    opacity = "getComputedStyle(document.querySelector('.errors')).opacity"
    assert browser.run(opacity) == "0"
    focus(browser, "[data-set='--errors']")
    browser.press("End")
    assert browser.run(opacity) == "1"


def test_the_right_side_shows_the_chosen_arm(browser, write_predictions, make_experiment, tmp_path):
    experiment = make_experiment(datasets=["tiny"], seeds=[0])
    write_predictions(experiment, tmp_path, "plain", "rival_one", "cross_entropy")
    browser.open(write_page(experiment, tmp_path, measure(experiment, tmp_path)))
    shown = (
        "[...new Set([...document.querySelectorAll('[data-arm]')].filter((each) => each.checkVisibility())"
        ".map((each) => each.dataset.arm))]"
    )
    assert browser.run(shown) == ["rival_one"]
    focus(browser, "[data-arm-choice]")
    browser.press("ArrowDown")
    assert browser.run(shown) == ["cross_entropy"]
    focus(browser, ".compare")
    browser.press("n")
    assert browser.run(shown) == ["cross_entropy"]


def test_the_protocol_chooses_the_ranking(browser, page):
    browser.open(page)
    shown = (
        "[...document.querySelectorAll('.board')].filter((each) => !each.hidden).map((each) => each.dataset.protocol)"
    )
    assert browser.run(shown) == ["whole"]
    focus(browser, "select[data-board=protocol]")
    browser.press("ArrowDown")
    assert browser.run(shown) == ["ms_flip"]


def test_a_link_into_a_folded_part_opens_it(browser, page):
    browser.open(page)
    focus(browser, "#board-0 tbody a")
    browser.press("Enter")
    assert browser.run("document.getElementById('methods').open")
    top = browser.run("document.querySelector(location.hash).getBoundingClientRect().top")
    assert 0 <= top < 900


def test_a_sections_figures_show_the_chosen_arm_beside_the_baseline(browser, page):
    browser.open(page)
    browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
    tops = (  # the second row's and the third's, from the first
        "(([first, ...others]) => others.map((top) => top && top - first))("
        "[...document.querySelectorAll('#embeddings [data-row]')].map((each) => each.getBoundingClientRect().top))"
    )
    opacities = "[...document.querySelectorAll('#training [data-arm]')].map((each) => getComputedStyle(each).opacity)"
    height = "document.querySelector('#embeddings .drawing svg').viewBox.baseVal.height"
    all_tops, whole = browser.run(tops), browser.run(height)
    for section in ("embeddings", "training"):
        focus(browser, f"#{section} [data-section-arm]")
        browser.press("ArrowDown", "ArrowDown")
    names = browser.run("[...document.querySelectorAll('#training option:checked')].map((each) => each.value)")
    assert names == ["rival_one"]
    assert [float(value) < 1 for value in browser.run(opacities)] == [False, True, False]
    assert browser.run(tops) == [0, pytest.approx(all_tops[0], abs=3)]  # one takes no place, the next moves up
    assert browser.run(height) < whole
    focus(browser, "#embeddings [data-section-arm]")
    browser.press("ArrowUp", "ArrowUp")
    assert browser.run(tops) == pytest.approx(all_tops, abs=0.1)
    assert browser.run(height) == whole


def test_the_name_of_an_arm_in_the_address_leads_to_its_row(browser, page):
    browser.open(page)
    browser.run("location.hash = '#plain'")
    browser.run("new Promise((done) => setTimeout(done, 100))")
    assert browser.run("document.querySelector(':target').matches('#board-0 #arm-plain')")


def test_without_a_script_all_is_there_and_nothing_is_dead(browser, page):
    browser.without_scripts(True)
    try:
        browser.open(page)
        dead = "[...document.querySelectorAll('button, input, select')].filter((e) => e.checkVisibility()).length"
        assert browser.run(dead) == 0
        assert browser.run("[...document.querySelectorAll('.board')].every((each) => each.checkVisibility())")
        assert browser.run("[...document.querySelectorAll('[data-image]')].every((each) => each.checkVisibility())")
    finally:
        browser.without_scripts(False)


def test_print_shows_what_is_folded(browser, page):
    browser.open(page)
    browser.run(
        "addEventListener('beforeprint', () => { window.unfolded = document.querySelectorAll('details[open]').length })"
    )
    pdf = browser.printed()
    assert pdf.startswith(b"%PDF")
    assert browser.run("window.unfolded") == browser.run("document.querySelectorAll('details').length")
    assert browser.run("document.querySelectorAll('details[open]').length") == 0  # as before


def test_a_figure_is_saved_on_white_paper(browser, page):
    browser.open(page)
    browser.prefer("dark")
    browser.run("document.querySelectorAll('details').forEach((each) => each.open = true)")
    browser.run("HTMLAnchorElement.prototype.click = function () { window.saved = [this.download, this.href] }")
    for kind, start in (("svg", "data:image/svg+xml"), ("png", "data:image/png;base64,")):
        focus(browser, f"[data-name=latency] [data-save={kind}]")
        browser.run("window.saved = null")
        browser.press("Enter")
        browser.run(
            "new Promise((done) => { const wait = () => window.saved ? done() : setTimeout(wait, 10); wait() })"
        )
        name, address = browser.run("window.saved")
        assert name == f"latency.{kind}"
        assert address.startswith(start)
    corner = browser.run(
        """new Promise((done) => { const image = new Image(); image.onload = () => {
          const canvas = document.createElement("canvas"); canvas.width = image.width; canvas.height = image.height;
          const context = canvas.getContext("2d"); context.drawImage(image, 0, 0);
          done([image.width, ...context.getImageData(1, 1, 1, 1).data]); }; image.src = window.saved[1]; })"""
    )
    browser.prefer("light")
    assert corner[0] == pytest.approx(4 * 7.2 * 72, abs=1)
    assert corner[1:] == [255, 255, 255, 255]


def test_tab_reaches_everything_in_order_and_shows_where_it_is(browser, page):
    browser.open(page)
    expected = browser.run(
        """(() => {
          const all = [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")];
          all.filter((each) => each.closest("dialog") === null && each.checkVisibility())
            .forEach((each, place) => each.dataset.place = place);
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
  const parts = (color) => {
    const found = color.match(/[\\d.]+/g).map(Number);
    return color.startsWith("color(srgb") ? [...found.slice(0, 3).map((part) => 255 * part), ...found.slice(3)] : found;
  };
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_every_text_stands_out_from_its_ground(browser, page, width, scheme):
    browser.prefer(scheme)
    browser.open(page, width)
    browser.run("document.querySelectorAll('details').forEach((each) => each.open = true)")
    browser.run("document.querySelector('#board-0 button[data-runs]').click()")
    found = browser.run(CONTRASTS)
    browser.prefer("light")
    expected = {"STRONG.", "FIGCAPTION.", "TD.better", "TD.worse", "DT.", "INPUT.", "SMALL.", "OPTION."}
    assert expected - {"OPTION."} <= {where for *_, where in found}
    assert len({color for _, color, _ in found}) >= 4
    assert (min(ratio for ratio, *_ in found) >= 4.5, [each for each in found if each[0] < 4.5]) == (True, [])


def test_on_a_phone_controls_are_as_large_as_a_fingertip(browser, page):
    browser.open(page, width=PHONE)
    sizes = browser.run(
        "(() => { document.querySelectorAll('details').forEach((each) => { each.open = true; });"
        "return [...document.querySelectorAll('select, summary, button, input')].map((each) => [each,"
        "each.getBoundingClientRect()]).filter(([each, box]) => box.height > 0 && each.type !== 'checkbox').map(([each,"
        "box]) => [each.outerHTML.slice(0, 80), Boolean(each.closest('tbody')), box.width, box.height]); })()"
    )
    assert len(sizes) > 10
    for name, in_table, width, height in sizes:
        assert min(width, height) >= 24, (name, width, height)
        assert in_table or height >= 44, (name, height)
