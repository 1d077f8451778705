import csv
import html
import html.parser
import io
import json
import re
import shutil
from base64 import b64decode

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from run_files import edit

from harness.comparison import Cell, cells
from harness.datasets.pictures import painted
from harness.evaluation.groups import groups
from harness.reporting.examples import gather_examples
from harness.reporting.figures.style import STYLE, save
from harness.reporting.measured import Measured
from harness.reporting.names import COLORS, SPARE_COLORS, arm_name, arm_styles, baseline_name, in_sentence, metric_title
from harness.reporting.over_settings import over_settings
from harness.reporting.page import HERE, embedded_json, write_page
from harness.reporting.page.content import Heading, PageCell, PageTable, Row, number
from harness.reporting.page.gallery import gallery
from harness.reporting.page.leaderboard import answer, title
from harness.runs.record import Record
from harness.statistics.interval import Gain
from harness.statistics.scores import Metric, dice, miou, miou_of

EVIL = "<script>alert(1)</script>&\"'"


class Reader(html.parser.HTMLParser):
    """The elements of a page: (tag, attributes), and the text of each table's rows."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.tables, self._cell = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.elements.append((tag, found))
        if tag == "table":
            self.rows = self.tables.setdefault(found["id"], [])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.rows[-1].append("".join(self._cell).strip())
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def written(experiment_in, write_all, write_run, tmp_path_factory):
    """A page of three arms, one of whose runs diverged, with two real figures; only read."""
    folder = tmp_path_factory.mktemp("page")
    experiment = experiment_in(folder)
    counts = write_all(experiment, folder)
    write_run(experiment, folder, "rival_one", 1, status="diverged", reason=f"loss is not finite {EVIL}")
    draw(folder / "reports" / "little" / "figures", "latency", "training")
    path = write_page(experiment, folder, mious(experiment, folder))
    return experiment, counts, path, path.read_text(encoding="utf-8")


def draw(folder, *names):
    """A small figure under each of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        figure = Figure((2, 1))
        figure.add_subplot().plot([0, 1], label=name)
        figure.text(0.1, 0.5, f"{name} {EVIL}")
        with mpl.rc_context(STYLE):
            save(figure, folder / name)


def mious(experiment, results, *more):
    """What is measured, but for boundaries and rare classes: enough for a page, and fast; and `more` metrics."""
    metrics = [miou_of("region"), *more]
    return [
        Measured(group.dataset, group.model, "whole", group.classes, region=cells(experiment, group, metrics))
        for group in groups(experiment, results, ["region"])
    ]


def test_the_page_holds_all_that_it_shows(written):
    *_, text = written
    reader = Reader(text)
    loaded = [value for tag, found in reader.elements for key, value in found.items() if key == "src" or tag == "link"]
    assert all(address.startswith("data:") for address in loaded if address != "icon")
    assert not re.search(r"url\((?!#|data:|\{)|@import", text)
    outside = [found["href"] for found in reader.all("a") if not found["href"].startswith(("data:", "#"))]
    assert all(address.startswith("https://") for address in outside)  # a paper, for who presses the link
    (policy,) = [found["content"] for found in reader.all("meta") if "http-equiv" in found]
    assert policy.startswith("default-src 'none'")
    drawn = [found for found in reader.all("svg") if found.get("role") == "img"]
    assert len(drawn) == 2
    assert all(found["aria-label"] and found["viewbox"] == "0 0 144 72" for found in drawn)


def test_links_labels_and_ids_fit_together(written):
    reader = Reader(written[3])
    ids = [found["id"] for _, found in reader.elements if "id" in found]
    assert len(ids) == len(set(ids))
    for key in ("for", "data-table"):
        assert all(found[key] in ids for _, found in reader.elements if key in found)
    inside = [found["href"][1:] for found in reader.all("a") if found["href"].startswith("#")]
    assert len(inside) > 8
    assert set(inside) <= set(ids)


def test_every_mean_and_gain_of_the_records_is_in_the_ranking(written):
    experiment, counts, _, text = written
    tables = Reader(text).tables
    for key, protocol in (("board-0", "whole"), ("board-1", "ms_flip")):
        rows = {row[0].split("\n")[0]: row[1:] for row in tables[key][1:]}
        scores = {
            arm: [
                float(miou(counts["scenes", "lite0_fpn", arm, seed].tables[protocol]["region"].sum(0)))
                for seed in experiment.seeds_of(arm)
            ]
            for arm in ("cross_entropy", "plain")
        }
        row, baseline = rows["Cross entropy"], rows["plain"]
        own, theirs = scores.values()
        assert row[0] == f"{np.mean(own):.2f} ± {np.std(own, ddof=1):.2f}"
        assert row[1].startswith(f"{np.mean(own) - np.mean(theirs):+.2f}")
        assert re.search(r"\[[+-][\d.]+, [+-][\d.]+\]$", row[1])
        assert baseline[:2] == [f"{np.mean(theirs):.2f} ± {np.std(theirs, ddof=1):.2f}", ""]
        assert rows["rival one"][0].endswith("1 of 2 runs")
    assert "this ranking is a detail" in text


@pytest.mark.parametrize(
    ("sharers", "costs", "note"), [(1, ["2.0×", "1.0×"], "Cost: time"), (4, [], "No cost, since runs shared a GPU")]
)
def test_runs_that_shared_a_gpu_have_no_cost(make_experiment, write_run, tmp_path, sharers, costs, note):
    experiment = make_experiment(arms={"plain": {"method": "cross_entropy"}, "cross_entropy": {}}, protocols=["whole"])
    for arm, seconds in (("plain", 50.0), ("cross_entropy", 100.0)):
        for seed in experiment.seeds_of(arm):
            write_run(experiment, tmp_path, arm, seed, device="a GPU", skill=0.6 + seconds / 1000)
            path = experiment.run("scenes", "lite0_fpn", arm, seed).folder(tmp_path) / "record.json"
            record = Record.load(path)
            device = record.device.model_copy(update={"sharers": sharers})
            made = record.provenance.model_copy(update={"device": device})
            record.model_copy(update={"seconds": seconds, "provenance": made}).save(path)
    text = write_page(experiment, tmp_path, mious(experiment, tmp_path)).read_text(encoding="utf-8")
    heading, *rows = Reader(text).tables["board-0"]
    place = heading.index("Cost") if "Cost" in heading else None
    assert [row[place] for row in rows if place is not None] == costs
    assert note in text


def test_the_ranking_is_by_miou_and_holes_stand_last(make_experiment, write_run, tmp_path):
    experiment = make_experiment(protocols=["whole"])
    for arm, skill in (("plain", 0.7), ("cross_entropy", 0.8)):
        for seed in experiment.seeds_of(arm):
            write_run(experiment, tmp_path, arm, seed, skill=skill)
    text = write_page(experiment, tmp_path, mious(experiment, tmp_path)).read_text(encoding="utf-8")
    rows = Reader(text).tables["board-0"][1:]
    assert [row[0].split("\n")[0] for row in rows] == ["Cross entropy", "plain", "rival one"]
    assert rows[2][1] == "not run"


def test_every_metric_of_the_regions_has_a_ranking_and_the_answer_is_of_miou_alone(
    make_experiment, write_run, tmp_path
):
    experiment = make_experiment(seeds=[0], protocols=["whole"], arms={"plain": {"method": "cross_entropy"}, "car": {}})
    for arm, skill in (("plain", 0.7), ("car", 0.8)):
        write_run(experiment, tmp_path, arm, 0, skill=skill)
    alone = mious(experiment, tmp_path)
    measured = mious(experiment, tmp_path, Metric("mean_dice", "region", dice))
    assert answer(experiment, measured, {}) == answer(experiment, alone, {})
    tables = Reader(write_page(experiment, tmp_path, measured).read_text(encoding="utf-8")).tables
    assert [tables[key][0][1] for key in ("board-0", "board-1")] == ["mIoU (%)", "Dice (%)"]
    for cell in measured[0].region:
        table = tables["board-0" if cell.metric == "miou" else "board-1"]
        (row,) = [row for row in table if row[0].startswith(arm_name(experiment, cell.arm))]
        assert row[1].startswith(f"{cell.values[0]:.2f}")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("miou", "mIoU"),
        ("mean_dice", "Dice"),
        ("boundary_miou@3px", "Boundary mIoU (3px)"),
        ("trimap_miou@0.02", "Trimap mIoU (0.02 of the diagonal)"),
        ("miou_objects_small", "mIoU, small objects"),
        ("miou_tail", "mIoU, tail classes"),
    ],
)
def test_a_metric_has_a_name_that_people_read(name, shown):
    assert metric_title(name) == shown


def test_a_link_to_the_page_has_a_preview_and_the_page_says_how_it_is_made_again(written):
    experiment, _, _, text = written
    told = {found["property"]: found["content"] for found in Reader(text).all("meta") if "property" in found}
    assert told["og:title"] == f"{title(experiment)} · Contextrast Bench"
    assert re.search(r'class="answer">(.*?)<', text)[1] == html.escape(told["og:description"], quote=False)
    assert "python -m harness report little.yaml" in text


def test_several_settings_have_a_table_of_means(make_experiment, write_all, tmp_path):
    experiment = make_experiment(models=["lite0_fpn", "hrnet_w48"], protocols=["whole"])
    write_all(experiment, tmp_path)
    measured = mious(experiment, tmp_path)
    text = write_page(experiment, tmp_path, measured).read_text(encoding="utf-8")
    rows = {row[0]: row[1:] for row in Reader(text).tables["settings"][1:]}
    for arm, mean in over_settings(experiment, measured).items():
        assert rows[arm_name(experiment, arm)] == [
            "2",
            f"{mean.difference:+.2f}",
            f"[{mean.low:+.2f}, {mean.high:+.2f}]",
            f"[{mean.low_like:+.2f}, {mean.high_like:+.2f}]",
        ]
    assert len(rows) == 2


def test_figures_are_drawings_with_their_own_ids_and_the_inks_of_the_page(written):
    *_, text = written
    drawings = re.findall(r'(?s)<div class="drawing">(.*?)</div>', text)
    assert len(drawings) == 2
    for drawing in drawings:
        assert "currentColor" in drawing
        assert "var(--ground)" in drawing
        assert not re.search(r"#([0-9a-f]{2})\1\1\b", drawing)  # no grey that would be lost on a dark ground
        used = set(re.findall(r'(?:href="|url\()#([^")]+)', drawing))
        assert used
        assert used <= set(re.findall(r'id="([^"]+)"', drawing))
    first, second = ({*re.findall(r'id="([^"]+)"', drawing)} for drawing in drawings)
    assert not first & second


@pytest.fixture
def with_tables(written, tmp_path):
    """Its experiment and a copy of its results, with an empty folder for tables, which is returned third."""
    experiment, _, path, _ = written
    results = shutil.copytree(path.parents[2], tmp_path / "results")
    tables = results / "reports" / "little" / "tables"
    tables.mkdir()
    return experiment, results, tables


def test_what_can_be_saved_is_in_the_page_as_it_is_in_the_files(with_tables):
    experiment, results, tables = with_tables
    (tables / "miou.csv").write_text("arm,mean\na,61.123456789\n")
    text = write_page(experiment, results, mious(experiment, results)).read_text(encoding="utf-8")
    saved = {found["download"]: found["href"] for found in Reader(text).all("a") if "download" in found}
    assert {"miou.csv", "latency.pdf", "training.pdf", "runs.csv"} <= saved.keys()
    runs = b64decode(saved["runs.csv"].removeprefix("data:text/csv;base64,")).decode()
    assert len(list(csv.DictReader(io.StringIO(runs)))) == len(experiment.runs())
    assert b64decode(saved["miou.csv"].removeprefix("data:text/csv;base64,")) == b"arm,mean\na,61.123456789\n"
    pdf = b64decode(saved["training.pdf"].removeprefix("data:application/pdf;base64,"))
    assert pdf == (tables.parent / "figures/training.pdf").read_bytes()


def test_numbers_name_the_runs_they_were_made_of(written):
    experiment, _, _, text = written
    reader = Reader(text)
    runs = json.loads(re.search(r'id="runs">(.*?)</script>', text, re.S)[1])
    buttons = [found for found in reader.all("span") if "data-runs" in found]
    assert {key for found in buttons for key in found["data-runs"].split()} == set(runs)
    assert len(runs) == len(experiment.runs())
    assert runs["scenes/lite0_fpn/plain/seed1"]["run"] == "results/runs/little/scenes/lite0_fpn/plain/seed1"
    assert all(found["title"] for found in buttons)


def test_commit_and_data_of_a_run_are_told(make_experiment, write_run, tmp_path):
    experiment = make_experiment(seeds=[0])
    write_run(experiment, tmp_path, "plain", 0)
    path = experiment.run("scenes", "lite0_fpn", "plain", 0).folder(tmp_path) / "record.json"
    known = {"commit": "c" * 40, "dirty": True, "data_fingerprint": "d" * 64}
    edit(path, provenance=known | {"device": {"type": "cpu", "name": "CPU"}})
    text = write_page(experiment, tmp_path).read_text(encoding="utf-8")
    facts = json.loads(re.search(r'id="runs">(.*?)</script>', text, re.S)[1])["scenes/lite0_fpn/plain/seed0"]
    assert facts["commit"] == "c" * 40 + " with changes that are in no commit"
    assert (facts["data fingerprint"], facts["device"], facts["seed"]) == ("d" * 64, "CPU", "0")
    table = Reader(text).tables["runs-all"]
    (row,) = [row for row in table if row[:3] == ["plain", "0", "done"]]
    assert [row[table[0].index(heading)] for heading in ("Commit", "Data")] == ["c" * 10, "d" * 10]


def test_holes_are_shown_with_their_reason(written):
    *_, text = written
    (row,) = [row for row in Reader(text).tables["runs-all"] if row[:2] == ["rival one", "1"]]
    assert row[2] == "diverged"
    assert row[3] == f"loss is not finite {EVIL}"
    assert "gains_scenes was not drawn" in text
    assert 'class="hole"' in text


def test_names_of_classes_and_words_of_figures_are_shown_and_not_run(written, make_experiment, write_all, tmp_path):
    assert written[3].count("latency &lt;script&gt;") == 1  # in the drawing itself
    experiment = make_experiment(datasets=["camvid"])
    classes = ("</script><b>", EVIL, "c", "d")
    write_all(experiment, tmp_path, classes=classes)
    reader = Reader(write_page(experiment, tmp_path, mious(experiment, tmp_path)).read_text(encoding="utf-8"))
    assert [row[0] for row in reader.tables["classes-0"][1:]] == list(classes)
    assert len(reader.all("script")) == 2
    assert not reader.all("b")


def test_json_cannot_end_its_element():
    value = {"a": "</script><!--", "b": EVIL}
    text = str(embedded_json(value))
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


def test_columns_that_say_one_thing_go_into_the_title():
    headings = [Heading(name) for name in ("a", "b", "c", "d")]
    rows = [Row([PageCell("one"), PageCell(each), PageCell("miou"), PageCell("same")]) for each in ("x", "y")]
    found = PageTable("t", "mIoU", headings, rows).compact(0, 1, 2)
    assert found.title == "mIoU: one"  # that it is mIoU is said already
    assert [heading.text for heading in found.headings] == ["b", "d"]
    assert [[cell.text for cell in row.cells] for row in found.rows] == [["x", "same"], ["y", "same"]]
    empty = PageTable("t", "mIoU", headings, [])
    assert empty.compact(0, 1) == empty


@pytest.mark.parametrize(
    ("value", "text"), [(1.005, "1.00"), (-0.001, "0.00"), (12.3456, "12.35"), (None, ""), (float("nan"), "")]
)
def test_numbers_are_rounded_for_reading_and_sorted_by_all_digits(value, text):
    entry = number(value)
    assert entry.text == text
    assert entry.value == (value if text else None)


def test_what_many_rows_say_is_said_once():
    rows = [Row([PageCell(name), PageCell(why)]) for name, why in (("a", "x"), ("b", "x"), ("c", "x"), ("d", "y"))]
    found = PageTable("t", "", [Heading("a"), Heading("why")], rows, ["first"]).said_once(1)
    assert [row.cells[1].text for row in found.rows] == ["[1]", "[1]", "[1]", "y"]
    assert found.notes == ["first", "[1] x."]


def test_without_records_there_is_a_page_that_says_so(make_experiment, tmp_path):
    text = write_page(make_experiment(), tmp_path).read_text(encoding="utf-8")
    assert {row[2] for row in Reader(text).tables["runs-all"][1:]} == {"not run"}
    (ranking,) = re.findall(r'(?s)<section id="results".*?</section>', text)
    assert not re.search(r"nan|None", ranking)
    assert "There is no result yet" in text
    assert "no examples for Scenes" in text


def test_published_gains_stand_first_with_verdict_and_source(with_tables):
    experiment, results, tables = with_tables
    (tables / "papers_verdicts.csv").write_text("table,verdict,gains\nmain,confirmed,2\nother,confirmed,1\n")
    names = "dataset,model,method,setting,metric,reading,protocol,published,published_gain,measured_dataset"
    names += ",measured_model,arm,runs,mean,gain,low,high,verdict,gain_visible,reason,source"
    row = "scenes,Net,Method & Co,,mIoU,,whole,71.5,1.25,scenes,lite0_fpn,cross_entropy,3,70.0,1.5,0.5,2.5"
    (tables / "papers_main.csv").write_text(f"{names}\n{row},open,1.6789,too few seeds,table III\n")
    text = write_page(experiment, results, mious(experiment, results)).read_text(encoding="utf-8")
    assert "<strong>3</strong> confirmed" in text
    (found,) = Reader(text).tables["papers-main"][1:]
    assert found == [
        *("Scenes", "Net", "Method & Co", "mIoU", "whole image"),
        *("71.50", "+1.25", "70.00", "+1.50", "+0.50", "+2.50", "3"),
        *("open (gains of 1.68 would be seen)", "too few seeds", "table III"),
    ]


def test_examples_compare_the_baseline_with_every_arm(tiny_data, make_experiment, write_predictions, tmp_path):
    experiment = make_experiment(datasets=["tiny"], protocols=["whole"], seeds=[0])
    write_predictions(experiment, tmp_path, "plain", "rival_one", "cross_entropy")
    measured = mious(experiment, tmp_path)
    text = write_page(experiment, tmp_path, measured).read_text(encoding="utf-8")
    (choice,) = re.findall(r"(?s)<select data-arm-choice>(.*?)</select>", text)
    assert re.findall(r'value="([^"]+)"', choice) == ["rival_one", "cross_entropy"]
    images = re.findall(r"(?s)<article data-image.*?</article>", text)
    assert images
    for image in images:
        views = re.findall(r"(?s)<figure class=\"view\".*?</figure>", image)
        assert [re.search(r'data-arm="([^"]+)"', view)[1] for view in views[1:]] == ["rival_one", "cross_entropy"]
        assert ["hidden" in view.split(">")[0] for view in views] == [False, False, True]
        captions = [re.sub("<[^>]+>", "", view.split("<figcaption>")[1]).strip() for view in views]
        assert captions[0].startswith("plain mIoU 100.0")
        assert re.fullmatch(r"rival one mIoU [\d.]+, -[\d.]+ over plain", captions[1])
    bare = write_page(experiment, tmp_path, measured, pictures=False).read_text(encoding="utf-8")
    assert "data-image" not in re.sub(r"(?s)<script.*?</script>", "", bare)


def test_errors_are_what_differs_from_the_ground_truth_where_there_is_one(
    tiny_data, make_experiment, write_predictions, tmp_path
):
    experiment = make_experiment(datasets=["tiny"], protocols=["whole"], seeds=[0])
    write_predictions(experiment, tmp_path, "plain", "rival_one")
    (examples,), _ = gather_examples(experiment, tmp_path)
    found = gallery(experiment, examples, "g")
    for shown, each in zip(found.images, examples.chosen, strict=True):
        for view in (shown.left, *shown.right):
            content = b64decode(view.errors.removeprefix("data:image/png;base64,"))
            alpha = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))[..., 3]
            wrong = (each.predictions[view.arm] != each.label) & (each.label != 255)
            np.testing.assert_array_equal(alpha > 0, wrong)
            content = b64decode(view.labels.removeprefix("data:image/png;base64,"))
            colors = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            np.testing.assert_array_equal(colors, painted(each.predictions[view.arm], examples.dataset))
        content = b64decode(shown.truth.removeprefix("data:image/png;base64,"))
        truth = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(truth, painted(each.label, examples.dataset))


def luminance(color):
    """Of WCAG 2.2."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("block", [0, 1], ids=["light", "dark"])
def test_every_arms_colour_has_enough_contrast_on_the_ground(block):
    css = (HERE / "page.css").read_text(encoding="utf-8")
    (ground,) = re.findall(r"--ground: (#[0-9a-f]{6});", re.findall(r":root \{([^}]+)\}", css)[block])
    for color in (*COLORS.values(), *SPARE_COLORS):
        dark, light = sorted((luminance(color), luminance(ground)))
        assert (light + 0.05) / (dark + 0.05) >= 3, color  # 1.4.11


TITLES = {
    "cross_entropy": "Cross entropy",
    "contextrast_pp": "Contextrast++",
    "pixel_contrast_memory": "Pixel contrast + memory",
    "cross_entropy_longer": "Cross entropy, 2.9× longer",
    "contextrast_1500": "Contextrast, 1,500 iterations",
    "mine": "mine",
    "as_long": "Cross entropy, equal compute",
}


def test_arms_are_named_after_their_methods(make_experiment):
    arms = {
        "cross_entropy": {},
        "cross_entropy_longer": {"method": "cross_entropy", "longer": 2.9},
        "pixel_contrast_memory": {"method": "pixel_contrast", "memory": True},
        "contextrast_pp": {},
        "contextrast_1500": {"method": "contextrast", "longer": 0.25},
        "mine": {"method": "contextrast"},
        "as_long": {"method": "cross_entropy", "compute_of": "mine"},
    }
    experiment = make_experiment(arms=arms, baseline="cross_entropy")
    assert {arm: arm_name(experiment, arm) for arm in experiment.arms} == TITLES
    assert baseline_name(experiment) == "cross entropy"
    assert in_sentence(experiment, "contextrast_pp") == "Contextrast++"
    assert in_sentence(experiment, "as_long") == "cross entropy, equal compute"


def test_colours_are_of_the_method_in_every_experiment(make_experiment):
    one = make_experiment(arms={"cross_entropy": {}, "car": {}, "contextrast": {}}, baseline="cross_entropy")
    other = make_experiment(arms={"pne": {}, "mine": {"method": "contextrast"}, "car": {}}, baseline="pne")
    first, second = arm_styles(one), arm_styles(other)
    assert first["car"] == second["car"]
    assert second["mine"] == first["contextrast"]  # the only arm of its method
    assert len({color for color, _ in second.values()}) == 3


def cells_of(arms, **gains):
    shared = {"dataset": "scenes", "model": "m", "protocol": "whole", "metric": "miou", "missing": {}}
    return [
        Cell(**shared, arm=arm, values={0: 60.0, 1: 61.0}, gain=gains.get(arm), is_baseline=arm == "cross_entropy")
        for arm in arms
    ]


@pytest.mark.parametrize(
    ("car", "longer", "expected"),
    [
        (Gain(0.5, -0.2, 1.2), Gain(3.0, 2.0, 4.0), "CAR does not beat cross entropy by more than 1.20 points, and "
         "cannot be told from it; training 2 times as long does, by +3.00 [+2.00, +4.00] points."),
        (Gain(0.5, 0.2, 0.8), None, "On Scenes CAR beats cross entropy: +0.50 [+0.20, +0.80] points."),
        (Gain(-0.5, -0.8, -0.2), None, "On Scenes CAR is behind cross entropy."),
        (Gain(0.5), None, "there are not enough runs for an answer: single runs differ from cross entropy by +0.50 "
         "points, and nothing follows about the methods."),
        (None, None, "There is no result yet"),
    ],
)  # fmt: skip
def test_the_answer_is_one_sentence_that_the_intervals_bear_out(make_experiment, car, longer, expected):
    arms = {"cross_entropy": {}, "car": {}, "cross_entropy_longer": {"method": "cross_entropy", "longer": 2.0}}
    experiment = make_experiment(arms=arms, baseline="cross_entropy")
    measured = Measured("scenes", "m", "whole", region=cells_of(arms, car=car, cross_entropy_longer=longer))
    said = answer(experiment, [measured], {})
    assert expected in said
    assert title(experiment) == "1 method against cross entropy on Scenes"


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([(-0.2, 1.2), (-0.4, 2.0), (-1.0, 0.1)], "no method beats cross entropy by more than 2.00 points, and none "
         "can be told from it."),
        ([(-0.2, 1.2), (-0.4, 2.0)], "no method beats cross entropy by more than 2.00 points, and none can be told "
         "from it; 1 other method has too few runs."),
        ([(-0.2, 1.2)], "CAR does not beat cross entropy by more than 1.20 points, and cannot be told from it; 2 "
         "other methods have too few runs."),
        ([(-0.2, 1.2), (0.4, 2.0), (0.2, 0.8)], "2 of 3 methods beat cross entropy, PNE by most: +1.20 "
         "[+0.40, +2.00] points."),
        ([(-0.8, -0.2), (-0.8, -0.4), (-0.5, -0.1)], "every method is behind cross entropy."),
    ],
)  # fmt: skip
def test_the_answer_claims_nothing_of_methods_that_were_not_run(make_experiment, gains, expected):
    arms = {"cross_entropy": {}, "car": {}, "pne": {}, "contextrast": {}}
    experiment = make_experiment(arms=arms, baseline="cross_entropy")
    known = {arm: Gain((low + high) / 2, low, high) for arm, (low, high) in zip(list(arms)[1:], gains, strict=False)}
    said = answer(experiment, [Measured("scenes", "m", "whole", region=cells_of(arms, **known))], {})
    assert said == f"On Scenes {expected}"


def test_arms_of_another_length_are_neither_counted_nor_judged(make_experiment):
    lengths = {f"{method}_half": {"method": method, "longer": 0.5} for method in ("cross_entropy", "contextrast")}
    experiment = make_experiment(arms={"cross_entropy": {}, "contextrast": {}} | lengths, baseline="cross_entropy")
    gains = {"contextrast": Gain(0.5, -0.2, 1.2), "contextrast_half": Gain(-3.0, -4.0, -2.0)}
    said = answer(experiment, [Measured("scenes", "m", "whole", region=cells_of(experiment.arms, **gains))], {})
    assert title(experiment) == "1 method against cross entropy on Scenes"
    assert "Contextrast does not beat cross entropy by more than 1.20 points, and cannot be told from it." in said
    only_lengths = make_experiment(arms={"cross_entropy": {}} | lengths, baseline="cross_entropy")
    assert title(only_lengths) == "1 method against cross entropy on Scenes"


def test_the_answer_says_what_equal_compute_gains(make_experiment):
    arms = {"cross_entropy": {}, "car": {}, "as_long": {"method": "cross_entropy", "compute_of": "car"}}
    experiment = make_experiment(arms=arms, baseline="cross_entropy")
    gains = {"car": Gain(0.5, -0.2, 1.2), "as_long": Gain(3.0, 2.0, 4.0)}
    said = answer(experiment, [Measured("scenes", "m", "whole", region=cells_of(arms, **gains))], {})
    assert "; training as long as CAR takes does, by +3.00 [+2.00, +4.00] points." in said
