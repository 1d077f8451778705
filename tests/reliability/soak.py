"""The soak test, `make soak`: thirty tiny runs, trained and evaluated while a second process kills their jobs.

pytest runs it where it is named alone. It writes what was survived into docs/reliability.md.
"""

import grid
from processes import fast_context

from harness import datasets
from harness.compute import atomic

ARMS = {"cross_entropy": {}, "contextrast": {}, "pixel_contrast": {"memory": True}}
SCHEDULE = {"iterations": 200, "batch": 2, "crop": [32, 32], "learning_rate": 0.1}
SCHEDULE |= {"log_every": 10, "checkpoint_every": 20}
KILL_EVERY = 2  # seconds
BEGIN, END = "<!-- soak: begin, written by make soak -->\n", "<!-- soak: end -->"


def test_a_grid_of_thirty_runs_ends_as_an_undisturbed_one(experiment_file, tiny_data, tmp_path, repository):
    experiment = experiment_file(
        datasets=["tiny"], arms=ARMS, seeds=list(range(10)), baseline_seeds=10, schedule=SCHEDULE, protocols=["whole"]
    )
    given = {"experiment": str(experiment), "datasets": str(datasets.FOLDER), "root": str(tiny_data)}
    processes = fast_context()
    undisturbed = grid.run_grid(processes, given, tmp_path / "undisturbed")
    disturbed = grid.run_grid(processes, given, tmp_path / "disturbed", kill_every=KILL_EVERY)
    same = sum(disturbed.hashes[run] == found for run, found in undisturbed.hashes.items())
    lines = [
        f"- {len(undisturbed.hashes)} runs ({', '.join(ARMS)}; {SCHEDULE['iterations']} iterations, a checkpoint every "
        f"{SCHEDULE['checkpoint_every']}), {grid.AT_A_TIME} at a time, a kill about every {KILL_EVERY} s.",
        f"- {disturbed.killed} jobs did not reach their end: "
        + ", ".join(f"{count} {how}" for how, count in sorted(disturbed.ends.items()) if "at its end" not in how)
        + ".",
        f"- {disturbed.statuses['done']} of {len(disturbed.hashes)} runs are done, {same} with the weights and scores "
        "of the undisturbed grid, bit by bit.",
        f"- It took {disturbed.seconds:.0f} s; without kills {undisturbed.seconds:.0f} s.",
    ]
    page = repository / "docs" / "reliability.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    atomic.write_text(page, f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n\n{END}{rest.partition(END)[2]}")
    assert disturbed.statuses == {"done": 30}
    assert same == 30
    assert disturbed.killed >= 30
