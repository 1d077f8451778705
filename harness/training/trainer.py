"""A network and a method being trained together: one step, and all state that a checkpoint needs."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from harness import models
from harness.datasets import IGNORE_INDEX
from harness.errors import UserError
from harness.experiment.schema import Schedule, discovery
from harness.models.segmenter import Segmenter, total_weight
from harness.training import distributed
from harness.training.samples import iteration_seed
from methods.method import Method


class Trainer:
    """Holds the network (kept for inference) and the method (dropped after training).

    On several processes each has the same of both, and sends its part of the batch through them.
    """

    def __init__(self, settings: dict[str, Any], num_classes: int, device: torch.device, weights: str = "auto") -> None:
        self.schedule = Schedule.model_validate(settings["schedule"])
        self.seed, self.device = settings["seed"], device
        # The network is made first: its initial values are the same for every arm of a seed.
        torch.manual_seed(self.seed)
        self.network: Segmenter = models.build(settings["model"], num_classes, weights)
        self.method = _build_method(settings["method"], settings["options"], self.network, num_classes)
        both = nn.ModuleList([self.network, self.method])
        if distributed.number() > 1 and device.type == "cuda":  # on a CPU it has no path
            nn.SyncBatchNorm.convert_sync_batchnorm(both)
        both.to(device)
        if self.schedule.channels_last:
            both.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
        self.parameters = [parameter for parameter in both.parameters() if parameter.requires_grad]
        groups = _groups(self.schedule, both, f"0.{self.network.backbone_prefix}")
        self.rate_factors = [rate for rate, _ in groups]
        self.optimizer = _optimizer(self.schedule, groups)
        weights_of_classes = self.schedule.class_weights
        self.class_weights = torch.tensor(weights_of_classes, device=device) if weights_of_classes else None
        self.first_bad = torch.tensor(torch.iinfo(torch.int64).max, device=device)
        # A memory fills before its method counts, so the method runs from the first iteration on.
        self.starts_at = math.ceil(settings.get("starts_at", 0) * self.schedule.iterations)
        self.counted = torch.tensor(True, device=device)  # whether any term of the method was ever other than 0
        self.part = self.schedule.batch // distributed.number()  # images of a batch that this process has
        self.micro_batch = self.part  # images that go through the network at a time

    def step(self, images: Tensor, labels: Tensor, iteration: int, learning_rate: float) -> dict[str, Tensor]:
        """One step on this process's images uint8 [B, 3, H, W] and labels int64 [B, H, W] (255 ignored).

        Returns the loss, its terms, the gradient's norm and, if it `observes` this iteration, the method's diagnostics:
        with several processes their means are the batch's, for all but the norm, which is the batch's. Notes the first
        iteration whose loss or gradient is not finite without asking the device for it (see `diverged_at`).
        """
        # Whatever is drawn at random in a step is a function of (seed, iteration, rank).
        torch.manual_seed(iteration_seed(self.seed, iteration, distributed.rank()))
        self.network.train()
        self.method.train()
        self.method.observing, self.method.diagnostics = self.observes(iteration), {}
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        if self.schedule.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        if self.micro_batch >= len(images):
            terms, diagnostics = self._backward(images, labels, iteration)
        else:
            terms, diagnostics = self._accumulate(images, labels, iteration)
        loss = terms["loss"]
        distributed.average_gradients(self.parameters)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = loss.isfinite() & norm.isfinite()
        self.first_bad = torch.where(finite, self.first_bad, self.first_bad.clamp(max=iteration))
        for group, factor in zip(self.optimizer.param_groups, self.rate_factors, strict=True):
            group["lr"] = learning_rate * factor
        self.optimizer.step()
        return {**terms, "gradient_norm": norm, **diagnostics}

    def observes(self, iteration: int) -> bool:
        """Whether the method's diagnostics are wanted of this iteration, from 0: where the history closes a row."""
        done = iteration + 1
        return done % self.schedule.log_every == 0 or done == self.schedule.iterations

    def _backward(
        self, images: Tensor, labels: Tensor, iteration: int, share: tuple[Tensor | float, float] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Add the gradients of some images; returns the loss with its terms, and the method's diagnostics.

        `share` weighs the network's terms and the method's, where these images are not the whole batch.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.schedule.precision == "bfloat16"):
            features = self.network.features(images)
            logits, auxiliary = self.network.decode(features)
            terms = self.network.losses(logits, auxiliary, labels, self.class_weights)
            own = self._method_terms(features, logits, labels, iteration)
        if self.method.cross_entropy_weight != 1 and iteration >= self.starts_at:
            terms["cross_entropy"] = self.method.cross_entropy_weight * terms["cross_entropy"]
        if share is not None:
            terms = {name: (term * share[0]).to(term.dtype) for name, term in terms.items()}
            own = {name: term * share[1] for name, term in own.items()}
        terms |= own
        loss = torch.stack([_at_least_float32(term) for term in terms.values()]).sum()
        loss.backward()
        return {"loss": loss.detach(), **terms}, self.method.diagnostics if self.method.observing else {}

    def _accumulate(
        self, images: Tensor, labels: Tensor, iteration: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """As `_backward`, a micro-batch at a time, the gradients added up.

        The cross entropy is normalised by the whole batch's pixels, as without micro-batches; a method's terms, which
        know their micro-batch alone, are averaged over the images, and its diagnostics over the micro-batches.
        """
        parts = math.ceil(len(images) / self.micro_batch)
        pixels = total_weight(labels, self.class_weights)
        sums: dict[str, Tensor] = {}
        noted: dict[str, list[Tensor]] = {}
        counted = torch.zeros_like(self.counted)
        for some, their_labels in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
            share = total_weight(their_labels, self.class_weights) / pixels, len(some) / len(images)
            terms, diagnostics = self._backward(some, their_labels, iteration, share)
            for name, term in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(term)) + term.detach()
            for name, value in diagnostics.items():
                noted.setdefault(name, []).append(value.detach())
            counted |= self.counted
        self.counted = counted
        return sums, {name: torch.stack(values).double().nanmean(0) for name, values in noted.items()}

    def _method_terms(
        self, features: list[Tensor], logits: Tensor, labels: Tensor, iteration: int
    ) -> dict[str, Tensor]:
        """The method's terms, from its start on; before it zeros, and only its state and diagnostics move."""
        started = iteration >= self.starts_at
        with torch.set_grad_enabled(started):
            terms: dict[str, Tensor] = self.method(features, logits, labels, iteration)
        if not started:
            terms = {name: torch.zeros_like(term) for name, term in terms.items()}
        if terms:
            active = torch.stack([term.detach() != 0 for term in terms.values()]).any()
            self.counted = active if iteration == 0 else self.counted | active
        return terms

    def diverged_at(self) -> int | None:
        """The first 0-based iteration whose loss or gradient was not finite on any process, or None."""
        iteration = -distributed.most(-int(self.first_bad))
        return None if iteration == torch.iinfo(torch.int64).max else iteration

    def ever_counted(self) -> bool:
        """Whether any term of the method was ever other than 0 on any process."""
        return bool(distributed.most(int(self.counted)))

    def state_dict(self) -> dict[str, Any]:
        """The state of network, method (with its buffers) and optimiser."""
        return {
            "network": self.network.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "counted": torch.tensor(self.ever_counted()),
            "micro_batch": self.micro_batch,
            "processes": distributed.number(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint of the same settings. Raises UserError if it is another network's."""
        try:
            self.network.load_state_dict(state["network"])
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(f"a checkpoint is another network's: start over with --restart ({said})") from None
        self.counted = state["counted"].to(self.device)
        if state.get("processes", 1) == distributed.number():
            self.micro_batch = state.get("micro_batch", self.micro_batch)


def _at_least_float32(term: Tensor) -> Tensor:
    return term.to(torch.promote_types(term.dtype, torch.float32))


def _build_method(name: str, options: dict[str, Any], network: Segmenter, num_classes: int) -> Method:
    try:
        method = discovery.load(name)(network.channels, num_classes, IGNORE_INDEX, **options)
    except (TypeError, ValueError) as error:  # options were checked with the experiment; a method may check more
        raise UserError(f"the method {name} refuses its options: {error}") from None
    method.align_corners = network.align_corners
    return method


def _groups(schedule: Schedule, both: nn.ModuleList, backbone: str) -> dict[tuple[float, float], list[nn.Parameter]]:
    """The trained parameters by (factor of the learning rate, weight decay); `backbone` begins its names."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in both.named_parameters():
        factor = 1.0 if name.startswith(backbone) else schedule.head_rate
        decay = 0.0 if any(part in name for part in schedule.undecayed) else schedule.weight_decay
        if parameter.requires_grad:
            groups.setdefault((factor, decay), []).append(parameter)
    return groups


def _optimizer(schedule: Schedule, groups: dict[tuple[float, float], list[nn.Parameter]]) -> torch.optim.Optimizer:
    given = [{"params": parameters, "weight_decay": decay} for (_, decay), parameters in groups.items()]
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(given, lr=schedule.learning_rate, momentum=schedule.momentum)
    return torch.optim.AdamW(given, lr=schedule.learning_rate)
