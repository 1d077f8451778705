# The workflow: verify -> train -> evaluate -> tables, figures, the page.
#   snakemake --cores all                                              the default experiment, config/smoke.yaml
#   snakemake --cores all --config experiment=config/camvid-small.yaml another one
#   snakemake --report report.zip                                      afterwards: the results and how they were made
# Every rule calls one verb of `python -m harness`; the rules only say what depends on what.

report: "workflow/report/workflow.rst"
include: "workflow/common.smk"


# A run that was skipped is a hole in the tables; where nothing else was asked for, that is no success.
onsuccess:
    say_what_was_skipped()


localrules:
    all,


rule all:
    input:
        REPORT_FILES,


rule verify:
    output:
        f"{RESULTS}/data/{{dataset}}/verify.json",
    params:
        fingerprint=lambda wildcards: dataset_fingerprint(wildcards.dataset),
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


rule train:
    input:
        f"{RESULTS}/data/{{dataset}}/verify.json",
    output:
        f"{RUNS}/{{dataset}}/{{model}}/{{arm}}/seed{{seed}}/training.json",
    params:
        fingerprint=run_fingerprint,
    threads: TRAIN_THREADS
    resources:
        gpu=GPU,
        runtime=training_minutes,
    log:
        f"{RESULTS}/logs/{NAME}/train/{{dataset}}-{{model}}-{{arm}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/logs/{NAME}/train/{{dataset}}-{{model}}-{{arm}}-seed{{seed}}.tsv"
    conda:
        "environment.yml"
    message:
        "Training {wildcards.arm} ({wildcards.model} on {wildcards.dataset}, seed {wildcards.seed})."
    shell:
        "harness train --dataset {wildcards.dataset} --model {wildcards.model}"
        " --arm {wildcards.arm} --seed {wildcards.seed} --results \"$RESULTS\" --threads {threads} --cache ram --keep-going"
        " 2>&1 | log {log:q}"


rule evaluate:
    input:
        rules.train.output,
    output:
        f"{RUNS}/{{dataset}}/{{model}}/{{arm}}/seed{{seed}}/record.json",
    params:
        folder=lambda wildcards, input: Path(input[0]).parent,
        protocols=[f"--protocol {protocol}" for protocol in EXPERIMENT.protocols],
        absent=EXPERIMENT.absent,
    threads: TRAIN_THREADS
    resources:
        gpu=GPU,
    log:
        f"{RESULTS}/logs/{NAME}/evaluate/{{dataset}}-{{model}}-{{arm}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/logs/{NAME}/evaluate/{{dataset}}-{{model}}-{{arm}}-seed{{seed}}.tsv"
    conda:
        "environment.yml"
    message:
        "Evaluating {wildcards.arm} ({wildcards.model} on {wildcards.dataset}, seed {wildcards.seed})."
    shell:
        "python -m harness evaluate {params.folder:q} {params.protocols} --absent {params.absent}"
        " --threads {threads} --keep-going 2>&1 | log {log:q}"


rule tables:
    input:
        RECORDS,
    output:
        in_report("Tables", TABLES),
    params:
        fingerprint=REPORT_FINGERPRINT,
    log:
        f"{RESULTS}/logs/{NAME}/tables.log",
    benchmark:
        f"{RESULTS}/logs/{NAME}/tables.tsv"
    conda:
        "environment.yml"
    message:
        "Writing the tables of {NAME}."
    shell:
        "harness report --part tables --results \"$RESULTS\" 2>&1 | log {log:q}"


rule figures:
    input:
        RECORDS,
    output:
        in_report("Figures", FIGURES),
    params:
        fingerprint=REPORT_FINGERPRINT,
    log:
        f"{RESULTS}/logs/{NAME}/figures.log",
    benchmark:
        f"{RESULTS}/logs/{NAME}/figures.tsv"
    conda:
        "environment.yml"
    message:
        "Drawing the figures of {NAME}."
    shell:
        "harness report --part figures --results \"$RESULTS\" 2>&1 | log {log:q}"


rule examples:
    input:
        RECORDS,
    output:
        in_report("Examples", [EXAMPLES]),
    params:
        fingerprint=REPORT_FINGERPRINT,
    log:
        f"{RESULTS}/logs/{NAME}/examples.log",
    benchmark:
        f"{RESULTS}/logs/{NAME}/examples.tsv"
    conda:
        "environment.yml"
    message:
        "Drawing the example pictures of {NAME}."
    shell:
        "harness report --part examples --results \"$RESULTS\" 2>&1 | log {log:q}"


rule page:
    input:
        RECORDS,
        TABLES,
        FIGURES,
        EXAMPLES,
    output:
        in_report("Page", [PAGE]),
    params:
        fingerprint=REPORT_FINGERPRINT,
    log:
        f"{RESULTS}/logs/{NAME}/page.log",
    benchmark:
        f"{RESULTS}/logs/{NAME}/page.tsv"
    conda:
        "environment.yml"
    message:
        "Writing the page of {NAME}."
    shell:
        "harness report --part page --results \"$RESULTS\" 2>&1 | log {log:q}"


# A target of its own (snakemake latency --cores all): nothing may run beside it.
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
