"""Region contrast: the centres of the classes in an image are contrasted with a memory of centres.

Hu et al., "Region-aware Contrastive Learning for Semantic Segmentation", ICCV 2021.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from methods.class_means import image_class_means
from methods.class_queues import MAX_SCORES, Queues
from methods.contrast_diagnostics import label_chance, label_diagnostics
from methods.heads import ProjectingMethod
from methods.info_nce import supervised_info_nce
from methods.labels import nearest
from methods.method import full_precision
from methods.options import LayerOptions
from methods.unit_vectors import unit


class RegionContrast(ProjectingMethod):
    """The centre of each class in each image is an anchor; the memory's centres are its positives and negatives.

    A centre is the normalised mean feature of the class in an image. The loss is InfoNCE, one positive at a time
    against all negatives, over all centres in the memory: the last `memory_size` of each class. A mini-batch is stored
    after its own loss is computed, from the first iteration on.

    The paper uses the features in front of the decode head's classifier, without a projection. Here, for all models,
    they are the encoder maps, upsampled to the finest of them, concatenated and projected. The paper's auxiliary term
    is left out. The released code differs from the paper and is not reproduced:
    - its centres are means over the pixels predicted as a class, in the whole mini-batch of a process, one per class;
    - it multiplies centre and memory channel by channel instead of taking dot products, and the negatives are the sum
      over the other classes: a softmax per channel in which only the first stored entry is the positive;
    - its memory starts with random vectors, keeps their graphs, and its pointer skips slots;
    - it works only with 19 classes.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 3.77 GiB.
    """

    title = "Region contrast"
    paper = "Region-aware Contrastive Learning for Semantic Segmentation"
    venue = "ICCV"
    year = 2021
    url = "https://github.com/hzhupku/RegionContrast"
    idea = "The mean feature of each class in an image is contrasted with a memory of such means."
    left_open = (
        "The released loss is another one: a softmax per channel, with centres of predicted classes, for 19 classes "
        "only."
    )

    @dataclass(frozen=True, kw_only=True)
    class Options(LayerOptions):
        """Temperature and weight are the released code's."""

        former_names: ClassVar[Mapping[str, str]] = {"queue": "memory_size", "gather_queues": "gather_memory"}

        dim: Annotated[int, Ge(1)] = 256  # channels of the embeddings
        temperature: Annotated[float, Gt(0)] = 0.2  # tau
        weight: Annotated[float, Ge(0)] = 0.1  # of the loss
        # a class's centre is the mean of the pixels "labelled" or "predicted" as the class, without ignored ones
        centres: Literal["labelled", "predicted"] = "labelled"
        memory_size: Annotated[int, Ge(1)] = 2000  # centres per class; the paper: one per training image
        gather_memory: bool = True  # the memory holds the centres of all processes

    options: Options

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        self.memory = Queues(num_classes, self.options.memory_size, self.options.dim)

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"region_contrast": weight * L}. Arguments as in Method.loss."""
        (embedding,) = embeddings
        size = (embedding.shape[2], embedding.shape[3])
        regions = nearest(labels, size)
        if self.options.centres == "predicted":
            regions = torch.where(regions == self.ignore_index, regions, nearest(logits.argmax(1), size))
        right = (nearest(logits.argmax(1), size) == nearest(labels, size))[:, None].to(embedding.dtype)
        means, classes = image_class_means(embedding, regions, self.num_classes, self.ignore_index)
        shares, _ = image_class_means(right, regions, self.num_classes, self.ignore_index)
        centres = unit(means)
        slots, stored = self.memory.slots()
        stored_classes = torch.where(
            stored, torch.arange(self.num_classes, device=stored.device)[:, None], self.num_classes
        )
        keys = slots.flatten(0, 1).to(centres.dtype), stored_classes.flatten()
        contrasted = (centres, classes, *keys, self.num_classes)
        loss = supervised_info_nce(*contrasted, self.options.temperature, max_entries=MAX_SCORES)
        self.diagnostics = {}
        if self.observing:
            chance = self.options.weight * label_chance(classes, keys[1], self.num_classes)
            self.diagnostics = label_diagnostics(*contrasted) | {"chance/region_contrast": chance}
            for name, values in (("age", self.memory.ages()), ("purity", self.memory.purity)):
                values = values[:, : stored.shape[1]]
                self.diagnostics[f"memory_{name}"] = (values * stored).sum() / stored.sum().clamp(min=1)
        self.memory.push(centres, classes, self.options.gather_memory, shares[:, 0])
        if self.observing:
            self.diagnostics["queue_fill"] = self.memory.fill()
        return {"region_contrast": self.options.weight * loss}
