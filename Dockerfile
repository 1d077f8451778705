# The project with its packages, for the CPU and for any NVIDIA GPU: torch brings its own CUDA, the host only needs a driver.
#   docker build --tag contextrast-bench .
#   docker run --rm --shm-size 2g --volume "$PWD/results:/bench/results" contextrast-bench
#   docker run --rm --gpus all --shm-size 8g --volume "$PWD/results:/bench/results" --volume /data/CamVid:/data/CamVid:ro \
#     --env CAMVID_ROOT=/data/CamVid contextrast-bench make run EXPERIMENT=config/camvid.yaml
# A smaller image without CUDA (docs/faq.md says what INDEX is):
#   docker build --tag contextrast-bench:cpu --build-arg TORCH=cpu --build-arg INDEX=... .
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm
ARG TORCH=
ARG INDEX=
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /bench
# The packages come first, so that an edit of the project does not install them again.
COPY requirements requirements
COPY Makefile .
RUN PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=${INDEX} make .venv/ready PYTHON=python3 TORCH=${TORCH}
COPY . .
# Records name the commit, so git must answer here whoever owns the files.
RUN git config --system --add safe.directory /bench \
    && .venv/bin/pip install --no-cache-dir --no-deps --editable . \
    && touch .venv/ready
ENV PATH=/bench/.venv/bin:$PATH
CMD ["make", "run"]
