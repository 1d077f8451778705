# The workflow: verify -> train -> evaluate -> tables, figures.
#   snakemake --cores all                                              the default experiment, config/smoke.yaml
#   snakemake --cores all --config experiment=config/camvid-small.yaml another one
# Every rule calls one verb of `python -m harness`; the rules only say what depends on what.

include: "workflow/common.smk"


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
    log:
        f"{RESULTS}/logs/{NAME}/verify/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/logs/{NAME}/verify/{{dataset}}.tsv"
    conda:
        "environment.yml"
    message:
        "Checking the data set {wildcards.dataset}."
    shell:
        "{PYTHON} -m harness verify --dataset {wildcards.dataset} --config {EXPERIMENT_FILE} --results {RESULTS}"
        " 2>&1 | tee {log}"


rule train:
    input:
        f"{RESULTS}/data/{{dataset}}/verify.json",
    output:
        f"{RUNS}/{{dataset}}/{{model}}/{{arm}}/seed{{seed}}/training.json",
    params:
        fingerprint=run_fingerprint,
        options=OVERRIDES,
    threads: TRAIN_THREADS
    resources:
        gpu=GPU,
    log:
        f"{RESULTS}/logs/{NAME}/train/{{dataset}}-{{model}}-{{arm}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/logs/{NAME}/train/{{dataset}}-{{model}}-{{arm}}-seed{{seed}}.tsv"
    conda:
        "environment.yml"
    message:
        "Training {wildcards.arm} ({wildcards.model} on {wildcards.dataset}, seed {wildcards.seed})."
    shell:
        "{PYTHON} -m harness train --config {EXPERIMENT_FILE} {params.options} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --arm {wildcards.arm} --seed {wildcards.seed} --results {RESULTS}"
        " --threads {threads} --cache --keep-going 2>&1 | tee {log}"


rule evaluate:
    input:
        rules.train.output,
    output:
        f"{RUNS}/{{dataset}}/{{model}}/{{arm}}/seed{{seed}}/record.json",
    params:
        folder=f"{RUNS}/{{dataset}}/{{model}}/{{arm}}/seed{{seed}}",
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
        "{PYTHON} -m harness evaluate {params.folder} {params.protocols} --absent {params.absent}"
        " --threads {threads} --keep-going 2>&1 | tee {log}"


rule tables:
    input:
        RECORDS,
    output:
        TABLES,
    params:
        options=OVERRIDES,
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
        "{PYTHON} -m harness report --part tables --config {EXPERIMENT_FILE} {params.options} --results {RESULTS}"
        " 2>&1 | tee {log}"


rule figures:
    input:
        RECORDS,
    output:
        FIGURES,
    params:
        options=OVERRIDES,
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
        "{PYTHON} -m harness report --part figures --config {EXPERIMENT_FILE} {params.options} --results {RESULTS}"
        " 2>&1 | tee {log}"


rule examples:
    input:
        RECORDS,
    output:
        EXAMPLES,
    params:
        options=OVERRIDES,
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
        "{PYTHON} -m harness report --part examples --config {EXPERIMENT_FILE} {params.options} --results {RESULTS}"
        " 2>&1 | tee {log}"
