import html
import html.parser
import json
import re
import shutil
import struct
import subprocess
from base64 import b64decode

import cv2
import numpy as np
import pytest

from harness.comparison import Cell, cells
from harness.evaluation.groups import groups
from harness.reporting.figures import figure_names
from harness.reporting.measured import Measured
from harness.reporting.over_settings import over_settings
from harness.reporting.page import HERE, embedded_json, write_page
from harness.reporting.page.content import Entry, Heading, PageTable, Row, number, verdict_text
from harness.runs.record import write_json
from harness.statistics.interval import Gain
from harness.statistics.scores import miou, miou_of

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


@pytest.fixture
def written(make_experiment, write_all, write_run, tmp_path):
    """A page of three arms, one of whose runs diverged, with two real figures."""
    experiment = make_experiment()
    counts = write_all(experiment, tmp_path)
    write_run(experiment, tmp_path, "rival_one", 1, status="diverged", reason=f"loss is not finite {EVIL}")
    folder = tmp_path / "reports" / "little" / "figures"
    folder.mkdir(parents=True)
    for name in ("miou", "training"):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((30, 40, 3), 200, np.uint8))
    path = write_page(experiment, tmp_path, mious(experiment, tmp_path))
    return experiment, counts, path, path.read_text(encoding="utf-8")


def mious(experiment, results):
    """What is measured, but for boundaries and rare classes: enough for a page, and fast."""
    return [
        Measured(
            group.dataset, group.model, "whole", group.classes, region=cells(experiment, group, [miou_of("region")])
        )
        for group in groups(experiment, results, ["region"])
    ]


def test_the_page_holds_all_that_it_shows(written):
    *_, text = written
    reader = Reader(text)
    addresses = [value for _, found in reader.elements for key, value in found.items() if key in ("src", "href")]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"url\(|@import|https?://", text)
    (policy,) = [found["content"] for found in reader.all("meta") if "http-equiv" in found]
    assert policy.startswith("default-src 'none'")
    for found in reader.all("img"):
        picture = b64decode(found["src"].removeprefix("data:image/png;base64,"))
        assert struct.unpack(">II", picture[16:24]) == (40, 30)
        assert (int(found["width"]), int(found["height"])) == (20, 15)  # shown at half its dots
        assert found["alt"]


def test_links_labels_and_ids_fit_together(written):
    reader = Reader(written[3])
    ids = [found["id"] for _, found in reader.elements if "id" in found]
    assert len(ids) == len(set(ids))
    for key in ("for", "data-table"):
        assert all(found[key] in ids for _, found in reader.elements if key in found)
    assert all(found["href"][1:] in ids for found in reader.all("a"))


def test_every_mean_and_gain_of_the_records_is_in_the_table(written):
    experiment, counts, _, text = written
    assert "<h3>mIoU: scenes, lite0_fpn, whole</h3>" in text  # what all rows have in common
    tables = Reader(text).tables
    whole = {row[0]: row[1:] for row in tables["miou"]}
    others = {row[0]: row[1:] for row in tables["protocols"]}
    for protocol, rows in (("whole", whole), ("ms_flip", others)):
        scores = {
            arm: [
                float(miou(counts["scenes", "lite0_fpn", arm, seed].tables[protocol]["region"].sum(0)))
                for seed in experiment.seeds_of(arm)
            ]
            for arm in ("cross_entropy", "plain")
        }
        row = rows["cross entropy"]
        own, theirs = scores.values()
        assert row[:3] == [f"{np.mean(own):.2f}", f"{np.std(own, ddof=1):.2f}", "2"]
        assert row[3].startswith(f"{np.mean(own) - np.mean(theirs):+.2f} [")
        assert rows["plain (baseline)"][:4] == [f"{np.mean(theirs):.2f}", f"{np.std(theirs, ddof=1):.2f}", "4", ""]
    assert whole["cross entropy"][4] in ("better", "worse", "not told from 0")
    assert whole["plain (baseline)"][4] == "the baseline"
    assert not {"better", "worse"} & {text for row in others.values() for text in row}  # details have no verdicts
    assert re.search(r"<details><summary>mIoU by other protocols: [^<]*\(one of many comparisons", text)


def test_several_settings_have_a_table_of_means(make_experiment, write_all, tmp_path):
    experiment = make_experiment(models=["lite0_fpn", "hrnet_w48"], protocols=["whole"])
    write_all(experiment, tmp_path)
    measured = mious(experiment, tmp_path)
    text = write_page(experiment, tmp_path, measured).read_text(encoding="utf-8")
    rows = {row[0]: row[1:] for row in Reader(text).tables["settings"][1:]}
    for arm, mean in over_settings(experiment, measured).items():
        assert rows[arm.replace("_", " ")] == [
            "2",
            f"{mean.difference:+.2f}",
            f"[{mean.low:+.2f}, {mean.high:+.2f}]",
            f"[{mean.low_like:+.2f}, {mean.high_like:+.2f}]",
        ]
    assert len(rows) == 2


def test_the_summary_shows_the_gains_and_no_figure_stands_twice(make_experiment, write_all, tmp_path):
    experiment = make_experiment()
    write_all(experiment, tmp_path)
    folder = tmp_path / "reports" / "little" / "figures"
    folder.mkdir(parents=True)
    for value, name in enumerate(figure_names(experiment)):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((30, 40, 3), value, np.uint8))
    text = write_page(experiment, tmp_path, mious(experiment, tmp_path)).read_text(encoding="utf-8")
    summary, rest = text.split('<section id="run">')
    assert [found["alt"] for found in Reader(summary).all("img")] == [figure_names(experiment)["gains_scenes"]]
    images = [found["src"] for found in Reader(text).all("img")]
    assert len(images) == len(set(images)) == len(figure_names(experiment))
    assert figure_names(experiment)["gains_scenes"] not in rest


def test_numbers_name_the_runs_they_were_made_of(written):
    experiment, _, _, text = written
    reader = Reader(text)
    runs = json.loads(re.search(r'id="runs">(.*?)</script>', text, re.S)[1])
    buttons = [found for found in reader.all("button") if "data-runs" in found]
    assert {key for found in buttons for key in found["data-runs"].split()} == set(runs)
    assert len(runs) == len(experiment.runs())
    assert runs["scenes/lite0_fpn/plain/seed1"]["run"] == "results/runs/little/scenes/lite0_fpn/plain/seed1"
    assert all(found["title"] for found in buttons)


def test_commit_and_data_of_a_run_are_told(make_experiment, write_run, tmp_path):
    experiment = make_experiment(seeds=[0])
    write_run(experiment, tmp_path, "plain", 0)
    path = experiment.run("scenes", "lite0_fpn", "plain", 0).folder(tmp_path) / "record.json"
    record = json.loads(path.read_text())
    for key in ("schema", "record_hash"):
        record.pop(key, None)
    record["provenance"] = {"commit": "c" * 40, "dirty": True, "data_fingerprint": "d" * 64, "device": {"name": "CPU"}}
    write_json(path, record)
    text = write_page(experiment, tmp_path).read_text(encoding="utf-8")
    facts = json.loads(re.search(r'id="runs">(.*?)</script>', text, re.S)[1])["scenes/lite0_fpn/plain/seed0"]
    assert facts["commit"] == "c" * 40 + " with changes that are in no commit"
    assert (facts["data fingerprint"], facts["device"], facts["seed"]) == ("d" * 64, "CPU", "0")
    (row,) = [row for row in Reader(text).tables["runs-all"] if row[:3] == ["plain", "0", "done"]]
    assert row[4:6] == ["c" * 10, "d" * 10]


def test_holes_are_shown_with_their_reason(written):
    *_, text = written
    (row,) = [row for row in Reader(text).tables["runs-all"] if row[:2] == ["rival one", "1"]]
    assert row[2] == "diverged"
    assert row[3] == f"loss is not finite {EVIL}"
    assert "gains_scenes.png was not drawn" in text
    assert 'class="hole"' in text


def test_names_are_shown_and_not_run(written, make_experiment, write_all, tmp_path):
    *_, text = written
    assert "<script>alert" not in text
    assert html.escape(EVIL, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text
    assert text.count("<script") == 2
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
    rows = [Row([Entry("one"), Entry(each), Entry("miou"), Entry("same")]) for each in ("x", "y")]
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


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        (Gain(0.5, 0.1, 0.9), ("better", "better")),
        (Gain(-0.5, -0.9, -0.1), ("worse", "worse")),
        (Gain(0.4, -0.1, 0.9), ("not told from 0", "")),
        (Gain(0.5), ("no interval", "")),
        (None, ("no baseline", "")),
    ],
)
def test_an_interval_is_put_in_words(gain, expected):
    cell = Cell("scenes", "lite0_fpn", "whole", "miou", "pne", {0: 60.0, 1: 61.0}, {}, gain, False)
    assert verdict_text(cell) == expected


def test_without_records_there_is_a_page_that_says_so(make_experiment, tmp_path):
    text = write_page(make_experiment(), tmp_path).read_text(encoding="utf-8")
    assert {row[2] for row in Reader(text).tables["runs-all"][1:]} == {"not run"}
    assert "0 have runs on both sides" in text
    assert "no examples of scenes" in text


def test_published_gains_stand_first_with_verdict_and_source(written):
    experiment, _, path, _ = written
    tables = path.parent / "tables"
    tables.mkdir()
    (tables / "papers_verdicts.csv").write_text("table,verdict,gains\nmain,confirmed,2\nother,confirmed,1\n")
    names = "dataset,model,method,setting,metric,reading,protocol,published,published_gain,measured_dataset"
    names += ",measured_model,arm,runs,mean,gain,low,high,verdict,gain_visible,reason,source"
    row = "scenes,Net,Method & Co,,mIoU,,whole,71.5,1.25,scenes,lite0_fpn,cross_entropy,3,70.0,1.5,0.5,2.5"
    (tables / "papers_main.csv").write_text(f"{names}\n{row},open,1.6789,too few seeds,table III\n")
    results = path.parent.parent.parent
    text = write_page(experiment, results, mious(experiment, results)).read_text(encoding="utf-8")
    assert "<strong>3</strong> confirmed" in text
    (found,) = Reader(text).tables["papers-main"][1:]
    assert found == [
        *("scenes", "Net", "Method & Co", "mIoU", "whole", "71.50", "+1.25", "70.00", "+1.50", "+0.50", "+2.50", "3"),
        *("open (gains of 1.68 would be seen)", "too few seeds", "table III"),
    ]
    assert text.index("Method &amp; Co") < text.index('id="run"')


def test_examples_change_with_the_arm_that_is_chosen(tiny_data, make_experiment, write_predictions, tmp_path):
    experiment = make_experiment(datasets=["tiny"], protocols=["whole"], seeds=[0])
    write_predictions(experiment, tmp_path, "plain", "rival_one")
    measured = mious(experiment, tmp_path)
    reader = Reader(write_page(experiment, tmp_path, measured).read_text(encoding="utf-8"))
    arms = [found["value"] for found in reader.all("input") if found["type"] == "radio"]
    assert len(arms) == 2
    shown = {found["data-arm"]: "hidden" in found for found in reader.all("figure") if "data-arm" in found}
    assert shown == {arms[0]: False, arms[1]: True}
    bare = Reader(write_page(experiment, tmp_path, measured, pictures=False).read_text(encoding="utf-8"))
    assert not [found for found in bare.all("input") if found["type"] == "radio"]


def luminance(color):
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_text_colour_has_enough_contrast_on_every_ground():
    css = (HERE / "page.css").read_text(encoding="utf-8")
    root, _, rest = css.partition("}")
    colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", root))
    texts = {name: color for name, color in colors.items() if name.startswith("text")}
    grounds = {name: color for name, color in colors.items() if name.startswith("ground")}
    assert len(texts) >= 3
    assert len(grounds) >= 2
    assert "#" not in re.sub(r"#[a-z-]+ ?\{", "", rest)  # no colour that is not one of these
    for text, ink in texts.items():
        for ground, paper in grounds.items():
            light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)  # WCAG 2.2, 1.4.3


def test_the_script_is_valid():
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine to read the script with")
    assert subprocess.run([node, "--check", HERE / "page.js"], check=False).returncode == 0
