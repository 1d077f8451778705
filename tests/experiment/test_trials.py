"""Overrides that change a result make a trial of another name; those that only choose among runs do not."""

import pytest

from harness.experiment.schema import LONGEST_TRIAL, Experiment, trial_name


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "small"),
        (["protocols=[whole]", "baseline=contextrast", "baseline_seeds=3"], "small"),
        (["seeds=[0]", "datasets=[camvid]", "models=[lite0_fpn]", "only={}", "roots.camvid=/data"], "small"),
        (["schedule.iterations=20"], "small+iterations=20"),
        (["schedule.batch=2", "seeds=[0]", "arms.contextrast.temperature=0.2"], "small+batch=2+temperature=0.2"),
        (["schedule.learning_rate=1e-3"], "small+learning_rate=1e-3"),
        (["schedule.crop=[64, 48]"], "small+crop=64-48"),
    ],
)
def test_a_trial_is_named_by_what_it_changes(overrides, name):
    assert trial_name("small", overrides) == name


def test_many_overrides_make_a_short_name_of_their_own():
    many = [f"schedule.checkpoint_every={number}" for number in range(20)]
    names = {trial_name("small", many), trial_name("small", many[:-1])}
    assert len(names) == 2
    assert max(map(len, names)) < LONGEST_TRIAL


def test_a_trial_has_folders_of_its_own_unless_it_is_given_a_name(experiment_file, tmp_path):
    path = experiment_file()
    chosen = ("scenes", "hrnet_tiny", "contextrast", 0)
    folders = [
        Experiment.load(path, overrides).run(*chosen).folder(tmp_path).relative_to(tmp_path / "runs").parts[0]
        for overrides in ([], ["schedule.iterations=20"], ["schedule.iterations=20", "name=mine"], ["seeds=[1]"])
    ]
    assert folders == ["tiny", "tiny+iterations=20", "mine", "tiny"]
