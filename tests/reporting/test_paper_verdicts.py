"""Synthetic records whose verdicts are known in closed form, through the whole of the papers' tables."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from run_files import make_record
from scipy import stats

from harness.evaluation.counts import Counts
from harness.experiment.schema import Arm, Experiment
from harness.reporting import published, verdicts
from harness.reporting.claims import claims, compared
from harness.reporting.published import figures, methods, training_settings
from harness.reporting.tables import write_tables
from harness.statistics.interval import Gain, critical, gains

pytestmark = pytest.mark.slow

ABLATIONS = "ablations_contextrast_pp_cityscapes_hrnet.csv"
PIXELS = 10_000  # a hundredth of a point each
LEVEL = 60.0
BASELINE = [-0.1, 0.1, -0.1, 0.1, -0.1, 0.1]  # its runs about LEVEL
# (data set, model): the verdict, and what every run of Contextrast has above LEVEL, in points. Images are all alike, so
# that the noise is that of the seeds alone and the interval, of a single arm, in closed form (`derived`).
RUNS = {
    ("cityscapes", "deeplabv3_r101"): ("confirmed", [2.03, 2.13, 2.23]),  # published +2.23
    ("cityscapes", "hrnet_w48"): ("gain, but smaller", [0.60, 0.70, 0.80]),  # published +3.72
    ("ade20k", "hrnet_w48"): ("open", [-0.50, 0.50, 1.50]),  # published +1.16; the interval holds 0, and one pair 1.16
    ("pascal_context", "hrnet_w48"): ("contradicted", [-1.10, -1.00, -0.90]),  # published +0.95
    ("pascal_context", "deeplabv3_r101"): ("contradicted", [-0.10, 0.00, 0.10]),  # published +0.98: neither of the two
    ("camvid", "deeplabv3_r101"): ("gain, but larger", [3.00, 3.10, 3.20]),  # published +1.18: too much is not the same
    ("camvid", "hrnet_w48"): ("confirmed", [2.10, 2.20]),  # published +2.16
    ("coco_stuff10k", "hrnet_w48"): ("open", [0.30]),
}
DIVERGED = ("ade20k", "deeplabv3_r101")
NOT_RUN = ("not run", [])


def load(repository, *changes, arms="{contextrast: {}}"):
    """The papers' experiment with these arms besides cross entropy, DeepLabV3 and HRNets, and these changes."""
    models = "models=[deeplabv3_r101, hrnet_w48, ocrnet_hrnet_w48]"
    arms = arms if isinstance(arms, str) else json.dumps(arms)
    given = [f"arms={arms.replace('{', '{cross_entropy: {}, ', 1)}", models, "protocols=[ms_flip, whole]", "name=paper"]
    return Experiment.load(repository / "config" / "paper.yaml", [*given, *changes])


def one_pair(repository, *changes, model="hrnet_w48", **arms):
    """The same on Cityscapes with one network, by the published protocol."""
    return load(repository, "datasets=[cityscapes]", f"models=[{model}]", "protocols=[ms_flip]", *changes, **arms)


def write_record(experiment, results, dataset, model, arm, seed, miou, status="done", tables=("region",)):
    run = experiment.run(dataset, model, arm, seed)
    folder = run.folder(results)
    folder.mkdir(parents=True)
    hits = round(miou / 100 * PIXELS)
    if status == "done":
        counts = np.stack([np.array([[hits, 0, PIXELS - hits]])] * 20)
        counted = {protocol: dict.fromkeys(tables, counts) for protocol in experiment.protocols}
        Counts([f"a_{number:03d}" for number in range(20)], ("only",), counted).save(folder / "counts.npz")
    reason = None if status == "done" else "loss is not finite at iteration 7"
    make_record(experiment, run, status, reason=reason).save(folder / "record.json")


def written_table(results, name):
    return pd.read_csv(results / "reports" / "paper" / "tables" / f"papers_{name}.csv")


@pytest.fixture(scope="module")
def written(repository, tmp_path_factory):
    results = tmp_path_factory.mktemp("written")
    experiment = load(repository)
    for pair, (_, above) in RUNS.items():
        for arm, offsets in (("cross_entropy", BASELINE), ("contextrast", above)):
            for seed, offset in enumerate(offsets):
                write_record(experiment, results, *pair, arm, seed, LEVEL + offset)
    for seed in range(3):
        write_record(experiment, results, *DIVERGED, "cross_entropy", seed, LEVEL)
    write_record(experiment, results, *DIVERGED, "contextrast", 1, 0, status="diverged")
    write_tables(experiment, results)
    return results


def derived(above):
    """Gain, half the width of its interval and of that of one more pair of runs, from the scores alone."""
    arms = [np.array(above), np.array(BASELINE)]
    dof = sum(len(each) - 1 for each in arms)
    shared = sum((len(each) - 1) * each.var(ddof=1) for each in arms) / dof
    u = [max(shared, (4 * shared + (len(each) - 1) * each.var(ddof=1)) / (len(each) + 3)) for each in arms]
    t = stats.t.ppf(0.975, dof)
    error = sum(variance / len(each) for variance, each in zip(u, arms, strict=True)) ** 0.5
    one_pair = sum(variance * (1 + 1 / len(each)) for variance, each in zip(u, arms, strict=True)) ** 0.5
    return arms[0].mean() - arms[1].mean(), t * error, t * one_pair, (t + stats.t.ppf(0.8, dof)) * error


def test_records_get_the_expected_verdicts(written):
    rows = written_table(written, "main").query("method == 'contextrast' and protocol == 'ms_flip'")
    rows = {(row.dataset, row.model): row for row in rows.itertuples()}
    assert len(rows) == 15
    for pair, row in rows.items():
        verdict, above = RUNS.get(pair, NOT_RUN)
        assert (row.verdict, row.runs) == (verdict, len(above)), pair
        if len(above) > 1:
            mean, half, one_pair, visible = derived(above)
            found = [row.gain, row.low, row.high, row.one_pair, row.gain_difference]
            expected = [mean, mean - half, mean + half, one_pair, mean - row.published_gain]
            assert found == pytest.approx(expected, abs=1e-6)
            gained, compatible = mean > half, abs(mean - row.published_gain) <= one_pair
            assert (verdict == "confirmed") == (gained and compatible)
            assert (verdict == "open") == (compatible and abs(mean) < half)
            seen = visible if verdict == "open" else np.nan
            assert row.gain_visible == pytest.approx(seen, abs=1e-6, nan_ok=True)
        if len(above) == 1:
            assert np.isnan([row.low, row.high, row.gain_visible]).all()
            assert row.gain == pytest.approx(above[0])
        if above:
            assert row.level_difference == pytest.approx(LEVEL + np.mean(above) - row.published, abs=1e-9)
    assert "loss is not finite at iteration 7" in rows[DIVERGED].reason
    assert "other sign" in rows["pascal_context", "hrnet_w48"].reason
    assert "no interval" in rows["coco_stuff10k", "hrnet_w48"].reason


def test_published_gains_are_over_the_published_baseline(written):
    rows = written_table(written, "main").query("dataset == 'cityscapes' and protocol == 'ms_flip'")
    gains = rows.set_index(["model", "method"])["published_gain"]
    assert gains["hrnet_w48", "contextrast"] == pytest.approx(3.72)
    assert gains["deeplabv3_r101", "contextrast"] == pytest.approx(2.23)
    assert gains["hrnet_w48", "region_contrast"] == pytest.approx(3.42)
    assert np.isnan(gains["hrnet_w48", "cross_entropy"])


def test_a_note_names_the_figures_that_seem_quoted(written):
    text = (written / "reports/paper/tables/papers_main.md").read_text()
    (note,) = [line for line in text.splitlines() if "as if quoted from other papers" in line]
    assert "Pixel contrast with hrnet\\_w48 81.0," in note


def test_there_is_no_verdict_by_another_protocol(written):
    whole = written_table(written, "main").query("protocol == 'whole' and runs > 0")
    assert set(whole["verdict"]) == {"no verdict"}
    assert whole["reason"].str.contains("protocol whole, published with ms_flip").all()


def test_the_test_server_cannot_be_asked(written):
    assert set(written_table(written, "cityscapes_test")["verdict"]) == {"not measurable here"}


def test_the_summary_counts_every_gain_once(written):
    counted = written_table(written, "verdicts").set_index(["table", "verdict"])["gains"]
    # 63 figures less 15 baselines are gains; besides Contextrast's 15 nothing was run.
    expected = {"confirmed": 2, "gain, but smaller": 1, "gain, but larger": 1, "contradicted": 2, "open": 2}
    assert counted["main"].to_dict() == expected | {"not run": 40, "not measurable here": 0, "no verdict": 0}
    assert counted["cityscapes_test", "not measurable here"] == 12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("schedule.iterations=20000", "iterations 20000, published 40000"),
        ("schedule.crop=[512, 512]", "crop 512x512, published 512x1024"),
        ("schedule.momentum=0.8", "momentum 0.8, published 0.9"),
        ("absent=zero", "absent zero, published with skip"),
        ("arms.contextrast.weight=1.0", "weight 1.0, published 0.1"),
        ("arms.contextrast.starts_at=0.5", "starts_at 0.5"),
    ],
)
def test_other_conditions_than_the_published_have_no_verdict(repository, tmp_path, change, said):
    experiment = one_pair(repository, change, model="deeplabv3_r101")
    for seed, gain in enumerate(RUNS["cityscapes", "deeplabv3_r101"][1]):
        write_record(experiment, tmp_path, "cityscapes", "deeplabv3_r101", "cross_entropy", seed, LEVEL)
        write_record(experiment, tmp_path, "cityscapes", "deeplabv3_r101", "contextrast", seed, LEVEL + gain)
    found = compared(experiment, tmp_path, claims(experiment, figures("miou_main.csv")))
    row = found.set_index(["model", "method"]).loc["deeplabv3_r101", "contextrast"]
    assert row["verdict"] == "no verdict"
    assert said in row["reason"]
    assert row["gain"] == pytest.approx(2.13)  # shown all the same


def test_the_papers_experiment_has_the_published_conditions(repository):
    """What config/paper.yaml says of oddities is what verdicts excuse, and its arms are the papers' methods."""
    experiment = Experiment.load(repository / "config" / "paper.yaml")
    settings, defaults = training_settings(), verdicts.default_options(experiment)
    expected = {name: [] for name in experiment.arms}
    expected["pixel_contrast"] = [
        f"{name}, published {value}"
        for name, value in (("max_views 100", None), ("min_pixels 0", None), ("memory False", True))
    ]
    expected["pixel_contrast_synthetic"] = [methods()["pixel_contrast_synthetic"]["not_verified"]]
    for name, arm in experiment.arms.items():
        options = methods().get(arm.method, {}).get("options", {})
        for pair in settings.keys() & experiment.pairs():
            assert verdicts.deviations(experiment, defaults, name, settings[pair], options, "skip") == expected[name], (
                name,
                pair,
            )
    (unprinted,) = verdicts.deviations(experiment, defaults, "contextrast", None, {}, "skip")
    assert "not published" in unprinted


def gain(low, high, one_pair=1.0):
    return Gain((low + high) / 2, low, high, standard_error=0.3, dof=7, critical=2.4, one_pair=one_pair)


@pytest.mark.parametrize(
    ("found", "published", "kind"),
    [
        (gain(0.5, 1.5), 1.0, "confirmed"),
        (gain(0.5, 1.5), 2.0, "confirmed"),  # the end of the luck of one pair belongs to it
        (gain(0.5, 1.5), 2.01, "gain, but smaller"),
        (gain(1.5, 2.5), 0.9, "gain, but larger"),
        (gain(0.5, 1.5), -1.0, "contradicted"),  # a published loss
        (gain(-1.5, -0.5), -1.0, "confirmed"),
        (gain(-1.5, -0.5), -2.1, "gain, but smaller"),
        (gain(-2.5, -1.5), -0.9, "gain, but larger"),
        (gain(-1.5, -0.5), 0.1, "contradicted"),
        (gain(-0.9, -0.1), 0.4, "open"),  # a loss, but one pair of runs may show a gain
        (gain(-0.5, 1.5), 1.0, "open"),
        (gain(-0.5, 0.2), 1.0, "contradicted"),
        (gain(-0.5, 0.2), 0.0, "open"),
        (gain(0.0, 1.5), 1.0, "open"),
        (Gain(1.0), 1.0, "open"),  # of single runs
        (None, 1.0, "open"),
    ],
)
def test_the_rule_of_verdicts(found, published, kind):
    verdict = verdicts.judge(found, published)
    assert verdict.kind == kind
    assert verdict.reason
    seen = (2.4 + stats.t.ppf(0.8, 7)) * 0.3 if kind == "open" and found and found.low is not None else None
    assert verdict.visible == (None if seen is None else pytest.approx(seen))


def honest_papers(runs, true_gain, papers, arms=1):
    """The share in percent of papers, each one more pair of runs of the same world, that the verdicts refuse."""
    rng = np.random.default_rng([runs, arms, int(10 * true_gain)])
    refused = []
    for _ in range(papers):
        baseline = rng.normal(0, 0.56, 2 * runs)
        scores = {arm: rng.normal(true_gain, 0.56, runs) for arm in range(arms)}
        images = rng.normal(0, 0.5, 50)  # alike for all
        resampled = {arm: values[:, None] + images for arm, values in {None: baseline, **scores}.items()}
        published = rng.normal(true_gain, 0.56) - rng.normal(0, 0.56)
        found = gains(baseline, scores, resampled, 24)[0]
        refused.append(verdicts.judge(found, published).kind not in (verdicts.CONFIRMED, verdicts.OPEN))
    return 100 * np.mean(refused)


@pytest.mark.parametrize("runs", [3, 5, 10])
def test_few_honest_papers_are_refused_whatever_the_number_of_seeds(runs):
    assert 2.5 <= honest_papers(runs, 1.0, 600) <= 8.5


@pytest.mark.exhaustive
def test_the_page_tells_what_becomes_of_honest_papers(repository):
    lines = (repository / "docs/maintainers/statistics.md").read_text().splitlines()
    start = lines.index("<!-- honest papers: a test recomputes it -->")
    told = [[float(cell) for cell in lines[start + i].split("|")[2:-1]] for i in (2, 4, 5, 6)]
    for column, runs in enumerate(told[0]):
        for row, true_gain in enumerate((0.0, 1.0, 2.0), start=1):
            found = honest_papers(int(runs), true_gain, 3000)
            assert told[row][column] == pytest.approx(found, abs=0.6), (runs, true_gain)
            assert 2.5 <= found <= 8


def test_boundaries_are_read_in_both_ways_and_sizes_over_the_first_published_method(repository, tmp_path):
    changes = "datasets=[cityscapes, pascal_context]", "models=[hrnet_w48]", "protocols=[ms_flip]"
    experiment = load(repository, *changes, arms="{multiscale_contrast: {}, contextrast: {}}")
    sizes = ("tiny", "small", "medium", "large")
    tables = ["region", *(f"{kind}@{width}px" for kind in ("boundary", "trimap") for width in (3, 7, 10, 20))]
    tables += [f"objects@{size}" for size in sizes]
    for dataset in experiment.datasets:
        for seed in range(3):
            for arm, miou in (("cross_entropy", 50), ("multiscale_contrast", 52), ("contextrast", 52.7 + 0.1 * seed)):
                write_record(experiment, tmp_path, dataset, "hrnet_w48", arm, seed, miou, tables=tables)
    write_tables(experiment, tmp_path)
    edges = written_table(tmp_path, "boundary").query("method == 'contextrast'")
    thin = edges[edges["metric"] == "boundary_miou@3px"].set_index("reading")["measured_metric"]
    assert thin.to_dict() == {"boundary IoU": "boundary_miou@3px", "trimap": "trimap_miou@3px"}
    assert set(edges["baseline"]) == {"cross_entropy"}
    assert edges["gain"].tolist() == pytest.approx([2.8] * 8)
    sized = written_table(tmp_path, "object_size").query("method == 'contextrast'")
    assert set(sized["metric"]) == {f"miou_objects_{size}" for size in sizes}
    assert set(sized["baseline"]) == {"multiscale_contrast"}
    assert sized["gain"].tolist() == pytest.approx([0.8] * 4)
    assert set(sized["verdict"]) <= set(verdicts.KINDS[:5])


def test_figures_that_seem_quoted_have_no_verdict_and_stand_beside_the_arm_with_a_memory(repository):
    experiment = Experiment.load(repository / "config" / "paper.yaml")
    found = pd.concat(claims(experiment, figures(name)) for name in ("miou_main.csv", "miou_other_backbones.csv"))
    found = found[found["dataset"] == "cityscapes"].set_index(["model", "method"])
    quoted = found[found["deviations"].map(lambda each: "quoted" in str(each))]
    assert set(quoted.loc["hrnet_w48"].index) == {
        *("pixel_contrast", "pixel_contrast_synthetic", "region_contrast", "multiscale_contrast")
    }
    # The baseline of all gains with MobileNetV2 is quoted.
    assert len(quoted.loc["mobilenet_v2_d8"]) == len(found.loc["mobilenet_v2_d8"])
    assert set(quoted.index.levels[0][quoted.index.codes[0]]) == {"hrnet_w48", "mobilenet_v2_d8"}
    assert found.loc[("hrnet_w48", "pixel_contrast"), "arm"] == "pixel_contrast_memory"
    assert found.loc[("hrnet_w48", "contextrast"), "deviations"] == []
    values = found.loc[found["quoted"], "published"]
    assert (values.round(1) == values).all()  # one decimal is what gives them away


def test_ablations_are_found_by_their_options(repository):
    experiment = Experiment.load(repository / "config" / "ablations.yaml")
    found = claims(experiment, figures(ABLATIONS)).set_index("setting")
    assert len(found) == found.index.nunique() == 27
    arms = found[["arm", "baseline"]].apply(tuple, axis=1)
    assert arms["fusion: concat_mlp"] == ("pp_concat_mlp", "pp")
    assert arms["memory_bank: all_layers"] == ("pp_stored_all_layers", "pp")
    assert arms["layers: 1+2"] == ("layers_1_2", "contextrast")
    assert arms["layer_weights: 1,0.7,0.4,0.1"] == ("weights_fine_to_coarse_10_7_4_1", "contextrast")
    assert arms["fusion: adaptive_fusion"] == ("pp", None)
    assert arms["layers: 1+2+3+4"] == arms["layer_weights: 0.1,0.3,0.7,1"] == ("contextrast", None)
    assert np.isnan(found.loc["fusion: adaptive_fusion", "published_gain"])
    assert found.loc["fusion: concat_mlp", "published_gain"] == pytest.approx(82.3 - 82.87)
    assert found["deviations"].all()  # on CamVid: no verdict


def test_an_ablation_under_the_published_conditions_is_judged(repository):
    arms = {"contextrast_pp": {}, "gated": {"method": "contextrast_pp", "fusion": "gated_scalar"}}
    found = claims(one_pair(repository, arms=arms), figures(ABLATIONS)).set_index("setting")
    assert found.loc["fusion: gated_scalar", ["arm", "deviations"]].tolist() == ["gated", []]
    assert found.loc["fusion: gated_channel", "gap"].kind == "not run"


def test_an_ablation_is_corrected_for_its_own_arms_alone_and_names_both_full_methods(repository, tmp_path):
    above = [0.5, 0.7, 1.0]
    changed = {
        "pp_static": {"method": "contextrast_pp", "fusion": "static"},  # no published setting
        "pp_gated": {"method": "contextrast_pp", "fusion": "gated_scalar"},  # of the ablation of fusions
        "pp_earliest": {"method": "contextrast_pp", "stored": "earliest_layer"},  # of memories
        "pp_all": {"method": "contextrast_pp", "stored": "all_layers"},
        "fine": {"method": "contextrast", "layer_weights": [1, 1, 1, 1]},  # of layer weights
    }
    experiment = one_pair(repository, arms={"contextrast_pp": {}, "contextrast": {}} | changed)
    for seed, gain in enumerate(above):
        for arm in experiment.arms:
            miou = LEVEL + (gain if arm in changed else 0)
            write_record(experiment, tmp_path, "cityscapes", "hrnet_w48", arm, seed, miou)
    write_tables(experiment, tmp_path)
    rows = written_table(tmp_path, "ablations").dropna(subset=["gain"]).set_index("arm")
    full = dict.fromkeys(changed.keys() - {"pp_static"}, "contextrast_pp") | {"fine": "contextrast"}
    assert rows["baseline"].to_dict() == full
    # Two arms take part in the ablation of memories, one in each of the others; the full methods' runs are all alike.
    widths = rows["high"] - rows["low"]
    for arm, others in (("pp_gated", 1), ("fine", 1), ("pp_all", 2), ("pp_earliest", 2)):
        variance, dof = np.var(above, ddof=1), 2 * others + 2
        shared = 2 * others * variance / dof
        u = max(shared, (4 * shared + 2 * variance) / 6)
        error = (u / 3 + shared / 3) ** 0.5
        c = critical((shared / 3 / error**2,) * others, dof)
        assert widths[arm] == pytest.approx(2 * c * error, rel=1e-6), arm
    text = (tmp_path / "reports/paper/tables/papers_ablations.md").read_text()
    assert "gain over Contextrast or Contextrast++ in points" in text


def test_the_tables_of_an_ablation_on_several_networks_have_labels_of_their_own(repository, tmp_path):
    arms = {"contextrast_pp": {}, "gated": {"method": "contextrast_pp", "fusion": "gated_scalar"}}
    write_tables(load(repository, "datasets=[cityscapes]", arms=arms), tmp_path)
    text = (tmp_path / "reports/paper/tables/papers_ablations.tex").read_text()
    assert len(set(re.findall(r"\\label{(.+)}", text))) == text.count(r"\label") == 3


def test_an_arm_of_another_method_does_not_stand_for_a_published_one(repository):
    experiment = load(repository)
    other = {"contextrast": Arm(method="cross_entropy", options={})}
    swapped = experiment.model_copy(update={"arms": experiment.arms | other})
    found = claims(swapped, figures("miou_main.csv"))
    assert {gap.kind for gap in found.loc[found["method"] == "contextrast", "gap"]} == {"not run"}


def test_a_baseline_may_have_another_name_than_its_method(repository, tmp_path):
    arms = "arms={again: {method: cross_entropy}, plain: {method: cross_entropy}, contextrast: {}}"
    experiment = one_pair(repository, arms, "baseline=plain")
    for arm, miou in (("again", 59), ("plain", 60), ("contextrast", 62)):
        for seed in range(2):
            write_record(experiment, tmp_path, "cityscapes", "hrnet_w48", arm, seed, miou + seed)
    write_tables(experiment, tmp_path)
    rows = written_table(tmp_path, "main").query("model == 'hrnet_w48'").set_index("method")
    assert rows.loc["cross_entropy", "arm"] == rows.loc["contextrast", "baseline"] == "plain"
    assert rows.loc["contextrast", "gain"] == pytest.approx(2)


def test_another_papers_figures_are_rows_and_no_code(repository, monkeypatch, tmp_path):
    """On a network that no paper here has, by another protocol than theirs: gains are judged by that one."""
    folder = shutil.copytree(published.FOLDER, tmp_path / "published")
    monkeypatch.setattr(published, "FOLDER", folder)
    figure = "camvid,test,lite0_fpn,{},miou,whole,skip,{},{},,a paper\n"
    header = (folder / "miou_main.csv").read_text().splitlines()[0] + "\n"
    rows = figure.format("cross_entropy", 60, ""), figure.format("contextrast", 62, "cross_entropy")
    (folder / "other.csv").write_text(header + "".join(rows))
    for name, row in (
        ("tables.csv", "other,other.csv,Another paper,region\n"),
        ("training_settings.csv", "camvid,lite0_fpn,360x480,16,6000,sgd,0.02,0.9,0.0005,poly,,a paper\n"),
    ):
        (folder / name).write_text((folder / name).read_text() + row)
    experiment = load(repository, "datasets=[camvid]", "models=[lite0_fpn]")
    for seed, offset in enumerate((-0.1, 0.1)):
        for arm, miou in (("cross_entropy", 50), ("contextrast", 52)):
            write_record(experiment, tmp_path, "camvid", "lite0_fpn", arm, seed, miou + offset)
    write_tables(experiment, tmp_path)
    rows = written_table(tmp_path, "other").query("method == 'contextrast'").set_index("protocol")
    assert rows["verdict"].to_dict() == {"whole": "confirmed", "ms_flip": "no verdict"}
    assert rows.loc["whole", "gain_difference"] == pytest.approx(0)
