"""Writes the skeleton of a new method: a complete example that trains, and an experiment that compares it."""

import keyword
import re
from pathlib import Path

import yaml

from harness import atomic, discovery
from harness.errors import UserError

METHOD = '''"""{title}: one line that says what it does.

Authors, title, venue, year; the equations that the functions below follow. This skeleton is a complete method: it pulls
each pixel's embedding to the mean of its class and away from the other classes' means.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.class_means import class_means
from methods.heads import relu_norm_head
from methods.labels import nearest
from methods.method import Method, full_precision
from methods.options import require_count, require_not_negative, require_positive


class {class_name}(Method):
    """Contrast of every pixel with the means of the classes in the mini-batch, on the finest encoder map.

    dim          channels of the embeddings
    temperature  divides the cosines
    weight       of the loss

    Raises ValueError for a value outside its range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        ignore_index: int = 255,
        *,  # what follows are the options, as an experiment's arm gives them; defaults are literals
        dim: int = 64,
        temperature: float = 0.1,
        weight: float = 0.1,
    ) -> None:
        super().__init__(channels, num_classes, ignore_index)
        require_count(dim=dim)
        require_positive(temperature=temperature)
        require_not_negative(weight=weight)
        self.temperature, self.weight = temperature, weight
        self.head = relu_norm_head(channels[0], dim)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Encoder maps [B, C_i, H_i, W_i], fine to coarse -> one map of raw embeddings [B, dim, H_1, W_1]."""
        return [self.head(features[0])]

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{{"{name}": weight * L}}. Arguments as in Method.loss; `logits` says what is predicted now."""
        (embedding,) = embeddings
        labels = nearest(labels, (embedding.shape[2], embedding.shape[3]))
        valid = labels != self.ignore_index
        vectors = F.normalize(embedding.movedim(1, -1)[valid])  # [N, dim]
        labels = labels[valid]  # [N]

        means, counts = class_means(vectors, labels, self.num_classes)
        similarity = vectors @ F.normalize(means).T / self.temperature  # [N, K]
        similarity = similarity.masked_fill(counts == 0, -torch.inf)  # classes that are not there
        terms = F.cross_entropy(similarity, labels, reduction="sum")  # a sum is finite, and 0, without any pixel

        self.diagnostics = {{"classes": (counts > 0).sum()}}  # plotted over the iterations
        return {{"{name}": self.weight * terms / max(len(labels), 1)}}
'''

EXPERIMENT = """# {name} beside cross entropy and Contextrast, in the setting of config/smoke.yaml.
#   make run EXPERIMENT=config/try_{name}.yaml
"""


def write_new_method(name: str, config_folder: Path, settings_of: Path) -> tuple[Path, Path]:
    """Write methods/NAME.py and config_folder/try_NAME.yaml, with the settings of another experiment; returns both.

    Raises UserError for a name that is taken or no lower-case identifier.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"{name!r} cannot name a method: use lower-case letters, digits and '_', a letter first")
    method, experiment = discovery.FOLDER / f"{name}.py", config_folder / f"try_{name}.yaml"
    for path in (method, experiment):
        if path.exists():
            raise UserError(f"{path} exists: choose another name or remove it")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    settings = yaml.safe_load(settings_of.read_text(encoding="utf-8"))
    settings["arms"] = {"cross_entropy": {}, "contextrast": {}, name: {}}
    text = METHOD.format(name=name, class_name=class_name, title=name.replace("_", " ").capitalize())
    atomic.write_text(method, text)
    atomic.write_text(experiment, EXPERIMENT.format(name=name) + yaml.safe_dump(settings, sort_keys=False))
    return method, experiment
