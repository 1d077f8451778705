# The workflow: verify -> run (train and evaluate) -> report.
#   snakemake                                                  config/quick.yaml, on all cores
#   snakemake --config experiment=config/camvid-small.yaml     another experiment
#   snakemake --report report.zip                              afterwards: the results and how they were made
# Every rule calls one verb of `python -m harness`; the rules only say what depends on what. What is done and what is not
# is read from the records (harness/runs/state.py), never from the age of files alone.

report: "workflow/report/workflow.rst"
include: "workflow/common.smk"


localrules:
    all,


rule all:
    input:
        VERIFIED,
        RECORDS,
        PAGE,


onstart:
    print(outlook(), file=sys.stderr, flush=True)


onsuccess:
    last_screen()


onerror:
    last_screen()


rule verify:
    output:
        f"{RESULTS}/data/{{dataset}}/verify.json",
    params:
        fingerprint=lambda wildcards: datasets.description_fingerprint(wildcards.dataset),
        missing=lambda wildcards: missing(wildcards.dataset),
    log:
        f"{RESULTS}/logs/{NAME}/verify/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/logs/{NAME}/verify/{{dataset}}.tsv"
    conda:
        "environment.yml"
    message:
        "Checking the data set {wildcards.dataset}."
    shell:
        "harness verify --dataset {wildcards.dataset} --results \"$RESULTS\""
        " --keep-going 2>&1 | log {log:q}"


rule run:
    input:
        data_of_run,
        mark_of_run,
    output:
        # Not removed when the job begins: a stale run is set aside whole.
        update(f"{RUNS}/{{dataset}}/{{model}}/{{arm}}/seed{{seed}}/record.json"),
    threads: TRAIN_THREADS
    resources:
        gpu=GPU,
        runtime=training_minutes,
    priority: longest_first
    log:
        f"{RESULTS}/logs/{NAME}/run/{{dataset}}-{{model}}-{{arm}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/logs/{NAME}/run/{{dataset}}-{{model}}-{{arm}}-seed{{seed}}.tsv"
    conda:
        "environment.yml"
    message:
        "Training and evaluating {wildcards.arm} ({wildcards.model} on {wildcards.dataset}, seed {wildcards.seed})."
    shell:
        "harness train --dataset {wildcards.dataset} --model {wildcards.model} --arm {wildcards.arm}"
        " --seed {wildcards.seed} --results \"$RESULTS\" --threads {threads} --evaluate --keep-going"
        " 2>&1 | log {log:q}"


rule report:
    input:
        RECORDS,
        EXTERNAL_RECORDS,
        mark_of_report,
    output:
        TABLES,
        in_report("Figures", FIGURES),
        in_report("Examples", [EXAMPLES]),
        in_report("Page", [PAGE]),
    log:
        f"{RESULTS}/logs/{NAME}/report.log",
    benchmark:
        f"{RESULTS}/logs/{NAME}/report.tsv"
    conda:
        "environment.yml"
    message:
        "Writing the tables, the figures and the page of {NAME}."
    shell:
        # Without its summary, which is the workflow's last screen.
        "harness report --results \"$RESULTS\" 2>&1 > /dev/null | log {log:q}"


# A target of its own (snakemake latency): nothing may run beside it.
rule latency:
    output:
        touch(f"{RESULTS}/cost/latency/{NAME}.done"),
    params:
        models=[f"--model {name}" for name in EXPERIMENT.models],
        size=config.get("size", "512x1024"),
    threads: 1024 # more than there are: Snakemake gives it all of them
    resources:
        gpu=GPU,
    log:
        f"{RESULTS}/logs/{NAME}/latency.log",
    benchmark:
        f"{RESULTS}/logs/{NAME}/latency.tsv"
    conda:
        "environment.yml"
    message:
        "Timing every method's inference network; nothing else runs."
    shell:
        "python -m harness latency {params.models} --size {params.size:q} --results \"$RESULTS\" 2>&1 | log {log:q}"
