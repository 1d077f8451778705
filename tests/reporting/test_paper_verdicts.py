"""Synthetic records whose verdicts are known in closed form, through the whole of the papers' tables."""

import csv
import json

import numpy as np
import pytest
from run_files import make_record
from scipy import stats

from harness.evaluation.counts import Counts
from harness.experiment.schema import Arm, Experiment
from harness.reporting import verdicts
from harness.reporting.claims import ablation_claims, claims, measure
from harness.reporting.published import FOLDER, ablations, figures, training_settings
from harness.reporting.tables import write_tables
from harness.statistics.interval import Gain, critical, gains

PIXELS = 10_000  # a hundredth of a point each
LEVEL = 60.0
BASELINE = [-0.1, 0.1, -0.1, 0.1, -0.1, 0.1]  # its runs about LEVEL

# (data set, model): what every run of Contextrast has above LEVEL, in points. Images are all alike, so that the noise
# is that of the seeds alone and the interval, of a single arm, in closed form (`derived`).
GAINS = {
    ("cityscapes", "deeplabv3_r101"): [2.03, 2.13, 2.23],  # published +2.23
    ("cityscapes", "hrnet_w48"): [0.60, 0.70, 0.80],  # published +3.72: a gain, but far smaller
    ("ade20k", "hrnet_w48"): [-0.50, 0.50, 1.50],  # published +1.16; the interval holds 0, and one pair 1.16
    ("pascal_context", "hrnet_w48"): [-1.10, -1.00, -0.90],  # published +0.95
    ("pascal_context", "deeplabv3_r101"): [-0.10, 0.00, 0.10],  # published +0.98: neither a gain nor compatible
    ("camvid", "deeplabv3_r101"): [3.00, 3.10, 3.20],  # published +1.18: too much is not the same either
    ("camvid", "hrnet_w48"): [2.10, 2.20],  # published +2.16
    ("coco_stuff10k", "hrnet_w48"): [0.30],
}
DIVERGED = ("ade20k", "deeplabv3_r101")
EXPECTED = {
    ("cityscapes", "deeplabv3_r101"): "confirmed",
    ("cityscapes", "hrnet_w48"): "gain, but smaller",
    ("ade20k", "hrnet_w48"): "open",
    ("pascal_context", "hrnet_w48"): "contradicted",
    ("pascal_context", "deeplabv3_r101"): "contradicted",
    ("camvid", "deeplabv3_r101"): "gain, but larger",
    ("camvid", "hrnet_w48"): "confirmed",
    ("coco_stuff10k", "hrnet_w48"): "open",
    DIVERGED: "not run",
}


@pytest.fixture(scope="module")
def repository(request):
    return request.config.rootpath


def load(repository, *changes):
    arms = "arms={cross_entropy: {}, contextrast: {}}"
    models = "models=[deeplabv3_r101, hrnet_w48, ocrnet_hrnet_w48]"
    given = [arms, models, "protocols=[ms_flip, whole]", "name=paper", *changes]
    return Experiment.load(repository / "config" / "paper.yaml", given)


def write_record(experiment, results, dataset, model, arm, seed, miou, status="done", tables=("region",)):
    run = experiment.run(dataset, model, arm, seed)
    folder = run.folder(results)
    folder.mkdir(parents=True)
    hits = round(miou / 100 * PIXELS)
    image = np.array([[hits, 0, PIXELS - hits]])
    table = np.stack([image] * 20)
    if status == "done":
        counts = {protocol: dict.fromkeys(tables, table) for protocol in experiment.protocols}
        Counts([f"a_{number:03d}" for number in range(20)], ("only",), counts).save(folder / "counts.npz")
    reason = None if status == "done" else "loss is not finite at iteration 7"
    make_record(experiment, run, status, reason=reason).save(folder / "record.json")


def write_records(experiment, results):
    for (dataset, model), above in GAINS.items():
        for seed, offset in enumerate(BASELINE):
            write_record(experiment, results, dataset, model, "cross_entropy", seed, LEVEL + offset)
        for seed, offset in enumerate(above):
            write_record(experiment, results, dataset, model, "contextrast", seed, LEVEL + offset)
    for seed in range(3):
        write_record(experiment, results, *DIVERGED, "cross_entropy", seed, LEVEL)
    write_record(experiment, results, *DIVERGED, "contextrast", 1, 0, status="diverged")


def rows_of(results, table):
    path = results / "reports" / "paper" / "tables" / f"papers_{table}.csv"
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(repository, tmp_path_factory):
    results = tmp_path_factory.mktemp("written")
    experiment = load(repository)
    write_records(experiment, results)
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
    rows = {
        (row["dataset"], row["model"]): row
        for row in rows_of(written, "main")
        if (row["method"], row["protocol"]) == ("contextrast", "ms_flip")
    }
    assert len(rows) == 15
    for pair, row in rows.items():
        assert row["verdict"] == EXPECTED.get(pair, "not run"), pair
        above = GAINS.get(pair, [])
        assert row["runs"] == str(len(above))
        published = float(row["published_gain"])
        if len(above) > 1:
            mean, half, one_pair, visible = derived(above)
            found = [float(row[name]) for name in ("gain", "low", "high", "one_pair", "gain_difference")]
            expected = [mean, mean - half, mean + half, one_pair, mean - published]
            assert found == pytest.approx(expected, abs=1e-6)
            gained, compatible = mean > half, abs(mean - published) <= one_pair
            assert (row["verdict"] == "confirmed") == (gained and compatible)
            assert (row["verdict"] == "open") == (compatible and abs(mean) < half)
            shown = float(row["gain_visible"]) if row["gain_visible"] else None
            assert shown == (pytest.approx(visible, abs=1e-6) if row["verdict"] == "open" else None)
        if len(above) == 1:
            assert (row["low"], row["high"], row["gain_visible"]) == ("", "", "")
            assert float(row["gain"]) == pytest.approx(above[0])
        if above:
            level = LEVEL + np.mean(above)
            assert float(row["level_difference"]) == pytest.approx(level - float(row["published"]), abs=1e-9)
    assert "loss is not finite at iteration 7" in rows[DIVERGED]["reason"]
    assert "other sign" in rows["pascal_context", "hrnet_w48"]["reason"]
    assert "no interval" in rows["coco_stuff10k", "hrnet_w48"]["reason"]


def test_published_gains_are_over_the_published_baseline(written):
    gains = {
        (row["model"], row["method"]): float(row["published_gain"])
        for row in rows_of(written, "main")
        if row["dataset"] == "cityscapes" and row["protocol"] == "ms_flip" and row["published_gain"]
    }
    assert gains["hrnet_w48", "contextrast"] == pytest.approx(3.72)
    assert gains["deeplabv3_r101", "contextrast"] == pytest.approx(2.23)
    assert gains["hrnet_w48", "region_contrast"] == pytest.approx(3.42)


def test_a_note_names_the_figures_that_seem_quoted(written):
    text = (written / "reports/paper/tables/papers_main.md").read_text()
    said = "as if quoted from other papers, whose training settings are others: Pixel contrast with hrnet\\_w48 81.0, "
    assert text.count(said) == 1


def test_there_is_no_verdict_by_another_protocol(written):
    whole = [row for row in rows_of(written, "main") if row["protocol"] == "whole" and row["runs"] != "0"]
    assert {row["verdict"] for row in whole} == {"no verdict"}
    assert all("protocol whole, published with ms_flip" in row["reason"] for row in whole)


def test_the_test_server_cannot_be_asked(written):
    rows = rows_of(written, "cityscapes_test")
    assert rows
    assert {row["verdict"] for row in rows} == {"not measurable here"}


def test_the_summary_counts_every_gain_once(written):
    counted = {(row["table"], row["verdict"]): int(row["gains"]) for row in rows_of(written, "verdicts")}
    of_main = {kind: number for (table, kind), number in counted.items() if table == "main"}
    # 63 figures less 15 baselines are gains; besides Contextrast's 15 nothing was run.
    expected = {"confirmed": 2, "gain, but smaller": 1, "gain, but larger": 1, "contradicted": 2, "open": 2}
    assert of_main == expected | {"not run": 40, "not measurable here": 0, "no verdict": 0}
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
    experiment = load(repository, "datasets=[cityscapes]", "models=[deeplabv3_r101]", "protocols=[ms_flip]", change)
    for seed, gain in enumerate(GAINS["cityscapes", "deeplabv3_r101"]):
        write_record(experiment, tmp_path, "cityscapes", "deeplabv3_r101", "cross_entropy", seed, LEVEL)
        write_record(experiment, tmp_path, "cityscapes", "deeplabv3_r101", "contextrast", seed, LEVEL + gain)
    rows = figures(FOLDER / "miou_main.csv")
    settings = training_settings(FOLDER / "training_settings.csv")
    findings = measure(experiment, tmp_path, claims(experiment, rows, settings))
    (found,) = [
        each
        for each in findings
        if (each.claim.figure.model, each.claim.figure.method) == ("deeplabv3_r101", "contextrast")
    ]
    assert found.verdict.kind == "no verdict"
    assert said in found.verdict.reason
    assert found.cell.gain.difference == pytest.approx(2.13)  # shown all the same


def test_the_papers_experiment_has_the_published_conditions(repository):
    """What config/paper.yaml says of oddities is what verdicts excuse, and its arms are the papers' methods."""
    experiment = Experiment.load(repository / "config" / "paper.yaml")
    settings = training_settings(FOLDER / "training_settings.csv")
    expected = {
        "pixel_contrast": [
            "max_views 100, published None",
            "min_pixels 0, published None",
            "memory False, published True",
        ],
        "pixel_contrast_synthetic": ["constants of its mixtures not verified, the paper was not at hand"],
    }
    for name in experiment.arms:
        for pair in experiment.pairs():
            if pair in settings:
                assert verdicts.deviations(experiment, name, *pair, settings[pair]) == expected.get(name, []), (
                    name,
                    pair,
                )
    unprinted = verdicts.deviations(experiment, "contextrast", "ade20k", "segformer_b0", None)
    assert unprinted == ["the training settings of this pair are not published"]


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
    experiment = load(
        repository,
        "arms={cross_entropy: {}, multiscale_contrast: {}, contextrast: {}}",
        "datasets=[cityscapes, pascal_context]",
        "models=[hrnet_w48]",
        "protocols=[ms_flip]",
    )
    widths = [f"{kind}@{width}px" for kind in ("boundary", "trimap") for width in (3, 7, 10, 20)]
    sizes = [f"objects@{size}" for size in ("tiny", "small", "medium", "large")]
    for dataset in experiment.datasets:
        for seed in range(3):
            for arm, miou in (("cross_entropy", 50), ("multiscale_contrast", 52), ("contextrast", 52.7 + 0.1 * seed)):
                tables = ("region", *widths, *sizes)
                write_record(experiment, tmp_path, dataset, "hrnet_w48", arm, seed, miou, tables=tables)
    write_tables(experiment, tmp_path)
    rows = [row for row in rows_of(tmp_path, "boundary") if row["method"] == "contextrast"]
    readings = {(row["reading"], row["measured_metric"]) for row in rows if row["metric"] == "boundary_miou@3px"}
    assert readings == {("boundary IoU", "boundary_miou@3px"), ("trimap", "trimap_miou@3px")}
    assert {row["baseline"] for row in rows} == {"cross_entropy"}
    assert {round(float(row["gain"]), 6) for row in rows} == {2.8}
    sized = [row for row in rows_of(tmp_path, "object_size") if row["method"] == "contextrast"]
    assert {row["metric"] for row in sized} == {f"miou_objects_{size}" for size in ("tiny", "small", "medium", "large")}
    assert {row["baseline"] for row in sized} == {"multiscale_contrast"}
    assert {round(float(row["gain"]), 6) for row in sized} == {0.8}
    assert {row["verdict"] for row in sized} <= set(verdicts.KINDS[:5])


def test_figures_that_seem_quoted_have_no_verdict_and_stand_beside_the_arm_with_a_memory(repository):
    experiment = Experiment.load(repository / "config" / "paper.yaml")
    settings = training_settings(FOLDER / "training_settings.csv")
    rows = [*figures(FOLDER / "miou_main.csv"), *figures(FOLDER / "miou_other_backbones.csv")]
    here = [each for each in claims(experiment, rows, settings) if each.figure.dataset == "cityscapes"]
    found = {(each.figure.model, each.figure.method): each for each in here}
    quoted = {key for key, claim in found.items() if any("quoted" in each for each in claim.deviations)}
    of_hrnet = {"pixel_contrast", "pixel_contrast_synthetic", "region_contrast", "multiscale_contrast"}
    assert {method for model, method in quoted if model == "hrnet_w48"} == of_hrnet
    # The baseline of all gains with MobileNetV2 is quoted.
    methods = {figure.method for figure in rows if figure.model == "mobilenet_v2_d8"}
    assert {method for model, method in quoted if model == "mobilenet_v2_d8"} == methods
    assert {model for model, _ in quoted} == {"hrnet_w48", "mobilenet_v2_d8"}
    assert found["hrnet_w48", "pixel_contrast"].arm == "pixel_contrast_memory"
    assert found["hrnet_w48", "contextrast"].deviations == ()
    for figure in rows:  # one decimal is what gives them away
        assert not figure.quoted or round(figure.value, 1) == figure.value


def test_ablations_are_found_by_their_options(repository):
    experiment = Experiment.load(repository / "config" / "ablations.yaml")
    settings = training_settings(FOLDER / "training_settings.csv")
    rows = ablations(FOLDER / "ablations_contextrast_pp_cityscapes_hrnet.csv")
    found = {claim.setting: claim for claim in ablation_claims(experiment, rows, settings)}
    assert len(found) == len(rows) == 27
    assert found["fusion: concat_mlp"].arm == "pp_concat_mlp"
    assert found["fusion: concat_mlp"].baseline == "pp"
    assert found["memory_bank: all_layers"].arm == "pp_stored_all_layers"
    assert (found["layers: 1+2"].arm, found["layers: 1+2"].baseline) == ("layers_1_2", "contextrast")
    assert found["layer_weights: 1,0.7,0.4,0.1"].arm == "weights_fine_to_coarse_10_7_4_1"
    full = found["fusion: adaptive_fusion"]
    assert (full.arm, full.baseline, full.published_gain) == ("pp", None, None)
    assert (found["layers: 1+2+3+4"].arm, found["layer_weights: 0.1,0.3,0.7,1"].arm) == ("contextrast", "contextrast")
    assert found["fusion: concat_mlp"].published_gain == pytest.approx(82.3 - 82.87)
    assert all(claim.deviations for claim in found.values())  # on CamVid: no verdict


def test_an_ablation_under_the_published_conditions_is_judged(repository):
    experiment = load(
        repository,
        "datasets=[cityscapes]",
        "models=[hrnet_w48]",
        "arms={cross_entropy: {}, contextrast_pp: {}, gated: {method: contextrast_pp, fusion: gated_scalar}}",
    )
    settings = training_settings(FOLDER / "training_settings.csv")
    rows = ablations(FOLDER / "ablations_contextrast_pp_cityscapes_hrnet.csv")
    found = {claim.setting: claim for claim in ablation_claims(experiment, rows, settings)}
    assert found["fusion: gated_scalar"].deviations == ()
    assert found["fusion: gated_channel"].gap.kind == "not run"


def test_an_ablation_is_corrected_for_its_own_arms_alone_and_names_both_full_methods(repository, tmp_path):
    above = [0.5, 0.7, 1.0]
    changed = {
        "pp_static": {"method": "contextrast_pp", "fusion": "static"},  # no published setting
        "pp_gated": {"method": "contextrast_pp", "fusion": "gated_scalar"},  # of the ablation of fusions
        "pp_earliest": {"method": "contextrast_pp", "stored": "earliest_layer"},  # of memories
        "pp_all": {"method": "contextrast_pp", "stored": "all_layers"},
        "fine": {"method": "contextrast", "layer_weights": [1, 1, 1, 1]},  # of layer weights
    }
    arms = {"cross_entropy": {}, "contextrast_pp": {}, "contextrast": {}} | changed
    experiment = load(
        repository, "datasets=[cityscapes]", "models=[hrnet_w48]", "protocols=[ms_flip]", f"arms={json.dumps(arms)}"
    )
    for seed, gain in enumerate(above):
        for arm in arms:
            miou = LEVEL + (gain if arm in changed else 0)
            write_record(experiment, tmp_path, "cityscapes", "hrnet_w48", arm, seed, miou)
    write_tables(experiment, tmp_path)
    rows = {row["arm"]: row for row in rows_of(tmp_path, "ablations") if row["gain"]}
    assert set(rows) == set(changed) - {"pp_static"}
    assert {arm: row["baseline"] for arm, row in rows.items() if row["baseline"] != "contextrast_pp"} == {
        "fine": "contextrast"
    }
    # Two arms take part in the ablation of memories, one in each of the others; the full methods' runs are all alike.
    widths = {arm: float(row["high"]) - float(row["low"]) for arm, row in rows.items()}
    for arm, others in (("pp_gated", 1), ("fine", 1), ("pp_all", 2), ("pp_earliest", 2)):
        scores = [np.array(above)] * others
        dof = 2 * others + 2
        shared = 2 * others * scores[0].var(ddof=1) / dof
        u = max(shared, (4 * shared + 2 * scores[0].var(ddof=1)) / 6)
        error = (u / 3 + shared / 3) ** 0.5
        c = critical((shared / 3 / error**2,) * others, dof)
        assert widths[arm] == pytest.approx(2 * c * error, rel=1e-6), arm
    text = (tmp_path / "reports/paper/tables/papers_ablations.md").read_text()
    assert "gain over Contextrast or Contextrast++ in points" in text


def test_an_arm_of_another_method_does_not_stand_for_a_published_one(repository):
    experiment = load(repository)
    swapped = experiment.model_copy(
        update={"arms": experiment.arms | {"contextrast": Arm(method="cross_entropy", options={})}}
    )
    settings = training_settings(FOLDER / "training_settings.csv")
    of_method = [
        claim
        for claim in claims(swapped, figures(FOLDER / "miou_main.csv"), settings)
        if claim.figure.method == "contextrast"
    ]
    assert {claim.gap.kind for claim in of_method} == {"not run"}
