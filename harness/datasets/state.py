"""Whether files have changed, as far as that shows without reading them."""

import hashlib
import json
from collections.abc import Sequence

from harness.datasets.dataset import Dataset
from harness.datasets.readers import Sample


def description_state(dataset: Dataset) -> str:
    """sha256 that changes with what is said about the data set (its YAML) and with the folder it lies in."""
    described = [str(dataset.folder().resolve()), dataset.spec.model_dump_json(), dataset.splits, dataset.remark]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def files_state(samples: Sequence[Sample]) -> str:
    """sha256 that changes with the ids, paths, sizes (bytes) and times of the samples' files, and with their order."""
    digest = hashlib.sha256()
    for sample in samples:
        line: list[str | int] = [sample.id]
        for path in (sample.image_path, sample.label_path):
            stat = path.stat()
            line += [str(path), stat.st_size, stat.st_mtime_ns]
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()
