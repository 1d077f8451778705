"""The profiles against Snakemake's own command line, the options of the plug-ins, and the rules of the workflow."""

import re

import pytest
import yaml
from snakemake.cli import get_argument_parser

PROFILES = ("default", "slurm")
# Of snakemake-executor-plugin-slurm 2.8.0, which is not in the lock.
OF_PLUGINS = {"slurm-requeue"}


def read(repository, name):
    return yaml.safe_load((repository / "profiles" / name / "config.yaml").read_text())


@pytest.fixture(scope="module")
def options():
    """The long options of Snakemake, without dashes."""
    parser = get_argument_parser()
    return {flag.removeprefix("--") for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_holds_only_options_that_snakemake_or_the_plug_in_has(repository, options, name):
    assert set(read(repository, name)) <= options | OF_PLUGINS


@pytest.mark.parametrize("name", PROFILES)
def test_unfinished_files_are_made_again_and_a_failed_run_does_not_stop_the_others(repository, name):
    profile = read(repository, name)
    assert profile["keep-going"] is True
    assert profile["rerun-incomplete"] is True
    # With Snakemake's own triggers a run would be made again when the mark that forces it has come or gone.
    assert profile["rerun-triggers"] == ["mtime", "params"]


def test_a_cluster_gives_each_run_one_gpu_and_restarts_what_it_stopped(repository):
    profile = read(repository, "slurm")
    assert profile["executor"] == "slurm"
    assert profile["retries"] > 0
    assert profile["set-resources"]["run"]["gpu"] == 1
    assert profile["set-resources"]["run"]["mem_mb"] > profile["default-resources"]["mem_mb"]
    # Else the number of GPUs of the machine that submits would limit what runs on the cluster.
    assert profile["resources"]["gpu"] >= profile["jobs"]


def test_a_profile_sets_only_rules_that_the_workflow_has(repository):
    rules = set(re.findall(r"^rule (\w+):", (repository / "Snakefile").read_text(), re.MULTILINE))
    profile = read(repository, "slurm")
    assert {*profile["set-resources"], *profile["set-threads"]} <= rules


def test_slurm_queues_a_preempted_job_again_and_warns_before_the_time_limit(repository):
    profile = read(repository, "slurm")
    assert profile["slurm-requeue"] is True
    assert "runtime" not in profile["set-resources"]["run"]  # it would replace the planner's
    seconds = re.search(r"--signal=TERM@(\d+)", profile["default-resources"]["slurm_extra"])
    assert int(seconds[1]) >= 60  # a checkpoint may take 30 s


def test_every_profile_is_described(repository):
    text = (repository / "docs" / "cluster.md").read_text()
    for words in ("--workflow-profile profiles/slurm", "snakemake-executor-plugin-slurm=="):
        assert words in text
