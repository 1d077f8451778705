"""One training step of a network and a method, and all state that a checkpoint needs."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import methods
from harness import models
from harness.compute.graph import Graphs
from harness.datasets import IGNORE_INDEX
from harness.errors import UserError, reason
from harness.experiment.schema import Schedule, discovery
from harness.models.compiled import compile_network
from harness.models.segmenter import Segmenter, total_weight
from harness.training import distributed
from harness.training.health import EncoderGradients, embedding_health
from harness.training.samples import iteration_seed
from methods.method import Method

TRAINERS_NAMES = ("loss", "cross_entropy", "auxiliary", "gradient_norm")  # what `step` returns besides a method's terms
HOW = ("fused", "foreach", "capturable")  # optimiser flags that change the kernels, not the result


class Trainer:
    """Holds the network (kept for inference) and the method (dropped after training).

    Every rank has a copy of both and processes its part of the batch.

    graphs: replay steps as a CUDA graph (`compute.graph`), on a GPU with one process and without micro-batches.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        num_classes: int,
        device: torch.device,
        weights: str = "auto",
        graphs: bool = False,
    ) -> None:
        self.schedule = Schedule.model_validate(settings["schedule"])
        self.seed, self.device = settings["seed"], device
        # The network is built first, so that its initial values are the same for every arm of a seed.
        torch.manual_seed(self.seed)
        self.network: Segmenter = models.build(settings["model"], num_classes, weights)
        self.method = _build_method(settings["method"], settings["options"], self.network, num_classes)
        both = nn.ModuleList([self.network, self.method])
        if distributed.world_size() > 1 and device.type == "cuda":  # SyncBatchNorm does not run on a CPU
            nn.SyncBatchNorm.convert_sync_batchnorm(both)
        both.to(device)
        if self.schedule.channels_last:
            both.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
        self.parameters = [parameter for parameter in both.parameters() if parameter.requires_grad]
        groups = _groups(self.schedule, both, f"0.{self.network.backbone_prefix}")
        self.rate_factors = [rate for rate, _ in groups]
        self.optimizer = _optimizer(self.schedule, groups, device)
        weights_of_classes = self.schedule.class_weights
        self.class_weights = torch.tensor(weights_of_classes, device=device) if weights_of_classes else None
        self.first_bad = torch.tensor(torch.iinfo(torch.int64).max, device=device)
        self._iteration = torch.tensor(0, device=device)
        # The method runs from the first iteration on, so that a memory bank is full when its terms begin to count.
        self.starts_at = math.ceil(settings.get("starts_at", 0) * self.schedule.iterations)
        self.ends_at = math.ceil(settings.get("ends_at", 1) * self.schedule.iterations)
        self._had_terms = False  # whether any batch of this process had terms of the method
        self.was_active = torch.tensor(True, device=device)  # whether any of the method's terms was ever nonzero
        self.part = self.schedule.batch // distributed.world_size()  # this rank's images of a batch
        self.micro_batch = self.part  # images per forward pass
        both.train()
        if self.schedule.compile:
            compile_network(self.network)
        self._graphs: Graphs | None = None
        if graphs and device.type == "cuda" and distributed.world_size() == 1:
            self._graphs = Graphs(self._update, "training", lambda: (*both.parameters(), *both.buffers()))

    def step(self, images: Tensor, labels: Tensor, iteration: int, learning_rate: float) -> dict[str, Tensor]:
        """One step on this rank's images uint8 [B, 3, H, W] and integer labels [B, H, W] (255 ignored).

        Returns the loss, its terms, the gradient norm and, if it `observes` this iteration, the method's diagnostics.
        With several ranks, the mean over ranks of each value is the whole batch's; the gradient norm already is the
        whole batch's on every rank, and health figures describe each rank's own images. Records the first iteration
        with a non-finite loss or gradient without synchronising with the device (see `diverged_at`).
        """
        # All randomness in a step is a function of (seed, iteration, rank).
        torch.manual_seed(iteration_seed(self.seed, iteration, distributed.rank()))
        for module in (self.network, self.method):
            if not module.training:
                module.train()
        self.method.observing = self.observes(iteration)
        self._number, self._counts = iteration, self.starts_at <= iteration < self.ends_at
        self._iteration.fill_(iteration)
        for group, factor in zip(self.optimizer.param_groups, self.rate_factors, strict=True):
            _set_rate(group, learning_rate * factor)
        if iteration == 0:
            self.was_active.fill_(False)
        if self._graphs is not None and self.micro_batch >= len(images):
            return dict(self._graphs((self.method.observing, self._counts), images, labels))
        return self._update(images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True))

    def _update(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The device's part of a step, without any communication with the host."""
        layout = torch.channels_last if self.schedule.channels_last else torch.contiguous_format
        images, labels = images.contiguous(memory_format=layout), labels.long()
        self.method.diagnostics = {}
        self.optimizer.zero_grad(set_to_none=True)
        if self.micro_batch >= len(images):
            terms, diagnostics = self._backward(images, labels)
        else:
            terms, diagnostics = self._accumulate(images, labels)
        loss = terms["loss"]
        distributed.average_gradients(self.parameters)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        bad = torch.where(loss.isfinite() & norm.isfinite(), self.first_bad, self._iteration)
        self.first_bad.copy_(torch.minimum(self.first_bad, bad))
        self.optimizer.step()
        return {name: value.detach() for name, value in (terms | {"gradient_norm": norm} | diagnostics).items()}

    def observes(self, iteration: int) -> bool:
        """Whether diagnostics are computed in this 0-based iteration: the last one of a history row."""
        done = iteration + 1
        return done % self.schedule.log_every == 0 or done == self.schedule.iterations

    def _backward(
        self, images: Tensor, labels: Tensor, share: tuple[Tensor | float, float] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Accumulate the gradients of some images; returns the loss with its terms, and the method's diagnostics.

        `share`: weights of the network's and the method's terms if these images are only a part of the batch.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.schedule.precision == "bfloat16"):
            features = self.network.features(images)
            logits, auxiliary = self.network.decode(features)
            terms = self.network.losses(logits, auxiliary, labels, self.class_weights)
            own = self._method_terms(features, logits, labels)
        if self.method.cross_entropy_weight != 1 and self._counts:
            terms["cross_entropy"] = self.method.cross_entropy_weight * terms["cross_entropy"]
        if share is not None:
            terms = {name: (term * share[0]).to(term.dtype) for name, term in terms.items()}
            own = {name: term * share[1] for name, term in own.items()}
        terms |= own
        loss = torch.stack([_at_least_float32(term) for term in terms.values()]).sum()
        if not self.method.observing:
            loss.backward()
            return {"loss": loss.detach(), **terms}, {}
        noted = self.method.diagnostics | embedding_health(self.method.embeddings, labels)
        self.method.embeddings = []
        # If the method replaces cross entropy, there is no cross-entropy gradient to compare with.
        compared = bool(own) and self._counts and self.method.cross_entropy_weight == 1
        gradients = None
        if compared and all(feature.requires_grad for feature in features):
            gradients = EncoderGradients(features, own)
        loss.backward()
        return {"loss": loss.detach(), **terms}, noted | (gradients.health() if gradients else {})

    def _accumulate(self, images: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Like `_backward`, one micro-batch at a time with accumulated gradients.

        Cross entropy is normalised by the whole batch's pixels, as without micro-batches. A method sees only its
        micro-batch: its terms are averaged over the images, and its diagnostics over the micro-batches.
        """
        parts = math.ceil(len(images) / self.micro_batch)
        pixels = total_weight(labels, self.class_weights)
        sums: dict[str, Tensor] = {}
        noted: dict[str, list[Tensor]] = {}
        for some, their_labels in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
            share = total_weight(their_labels, self.class_weights) / pixels, len(some) / len(images)
            terms, diagnostics = self._backward(some, their_labels, share)
            for name, term in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(term)) + term.detach()
            for name, value in diagnostics.items():
                noted.setdefault(name, []).append(value.detach())
        return sums, {name: torch.stack(values).double().nanmean(0) for name, values in noted.items()}

    def _method_terms(self, features: list[Tensor], logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The method's terms while they count, otherwise zeros (its state and diagnostics are updated all the same)."""
        # A captured step is replayed in other iterations, so it must not depend on the iteration's number.
        iteration = _ANY_ITERATION if self._graphs is not None and self._graphs.capturing else self._number
        with torch.set_grad_enabled(self._counts):
            terms: dict[str, Tensor] = self.method(features, logits, labels, iteration)
        _check_terms(self.method, terms, self._counts, self._had_terms)
        self._had_terms |= bool(terms)
        if not self._counts:
            terms = {name: torch.zeros_like(term) for name, term in terms.items()}
        if terms:
            self.was_active.logical_or_(torch.stack([term.detach() != 0 for term in terms.values()]).any())
        elif not self._had_terms:  # there is nothing to activate
            self.was_active.fill_(True)
        return terms

    @property
    def replays(self) -> bool:
        """Whether steps are replayed as a CUDA graph."""
        return self._graphs is not None and self._graphs.replays

    def diverged_at(self) -> int | None:
        """The first 0-based iteration with a non-finite loss or gradient on any rank, or None."""
        iteration = -distributed.max_over_ranks(-int(self.first_bad))
        return None if iteration == torch.iinfo(torch.int64).max else iteration

    def method_was_active(self) -> bool:
        """Whether any of the method's terms was ever nonzero on any rank."""
        return bool(distributed.max_over_ranks(int(self.was_active)))

    def state_dict(self) -> dict[str, Any]:
        """The state of network, method (with its buffers) and optimiser."""
        return {
            "network": self.network.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": _as_numbers(self.optimizer.state_dict()),
            "counted": torch.tensor(self.method_was_active()),
            "micro_batch": self.micro_batch,
            "processes": distributed.world_size(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint with the same settings. Raises UserError if its tensors do not fit."""
        try:
            self.network.load_state_dict(state["network"])
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(_as_of(state["optimizer"], self.optimizer))
            _begin_momentum(self.optimizer)
        except (KeyError, RuntimeError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(
                f"a checkpoint is another network's, or a buffer's shape changed: start over with --restart ({why})"
            ) from None
        self.was_active.copy_(state["counted"])
        if state.get("processes", 1) == distributed.world_size():
            self.micro_batch = state.get("micro_batch", self.micro_batch)


def _check_terms(method: Method, terms: Any, count: bool, had_terms: bool) -> None:
    """Raise ValueError if what a method's `loss` returned is not {name: scalar}, with a graph if the terms `count`.

    A method with parameters may return no term only if an earlier batch `had_terms`.
    """
    loss = f"{type(method).__name__}.loss"
    if wrong := [name for name, value in method.diagnostics.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{loss} puts {wrong[0]} into diagnostics, which take tensors alone")
    if terms == {} and not had_terms and next(method.parameters(), None) is not None:
        raise ValueError(f"{loss} returns no term, so the method's heads learn nothing")
    if not isinstance(terms, dict):
        raise ValueError(f"{loss} must return a dict {{name: scalar}}, not {type(terms).__name__}")
    for name, term in terms.items():
        if not isinstance(name, str) or name in TRAINERS_NAMES:
            raise ValueError(f"{loss} calls a term {name!r}: use another name, a text that is none of the trainer's")
        if not isinstance(term, Tensor) or term.dim():
            shown = f"a tensor {list(term.shape)}" if isinstance(term, Tensor) else type(term).__name__
            raise ValueError(f"{loss} must return scalar tensors, but {name} is {shown}")
        if count and not term.requires_grad:
            raise ValueError(f"{loss} returns {name} without a gradient: compute it from the embeddings or logits")


def _at_least_float32(term: Tensor) -> Tensor:
    return term.to(torch.promote_types(term.dtype, torch.float32))


def _build_method(name: str, options: dict[str, Any], network: Segmenter, num_classes: int) -> Method:
    try:
        method = discovery.load(name)(network.channels, num_classes, IGNORE_INDEX, **options)
    except ValueError as error:  # beyond the checks when the experiment was read
        raise UserError(f"the method {name} refuses its options: {error}") from None
    except (TypeError, AttributeError) as error:
        why = reason(error, Path(methods.__file__).parent)
        raise UserError(f"the method {name} cannot be built: {why}") from None
    method.align_corners = network.align_corners
    return method


def _groups(schedule: Schedule, both: nn.ModuleList, backbone: str) -> dict[tuple[float, float], list[nn.Parameter]]:
    """The trainable parameters by (learning-rate factor, weight decay); `backbone` is the prefix of its names."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in both.named_parameters():
        factor = 1.0 if name.startswith(backbone) else schedule.head_rate
        decay = 0.0 if any(part in name for part in schedule.undecayed) else schedule.weight_decay
        if parameter.requires_grad:
            groups.setdefault((factor, decay), []).append(parameter)
    return groups


def _optimizer(
    schedule: Schedule, groups: dict[tuple[float, float], list[nn.Parameter]], device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser: fused on a GPU, with the learning rate as a device tensor that a captured graph can read."""
    given: list[dict[str, Any]] = []
    for (_, decay), parameters in groups.items():
        given.append({"params": parameters, "weight_decay": decay})
        if device.type == "cuda":
            given[-1] |= {"lr": torch.tensor(schedule.learning_rate, device=device)}
    fused = True if device.type == "cuda" else None
    if schedule.optimizer == "sgd":
        made = torch.optim.SGD(given, lr=schedule.learning_rate, momentum=schedule.momentum, fused=fused)
        _begin_momentum(made)
        return made
    return torch.optim.AdamW(given, lr=schedule.learning_rate, fused=fused, capturable=bool(fused))


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Start a fused SGD with zero momentum buffers for all parameters, which is equivalent to having none.

    torch's fused step needs the buffer for all parameters or for none; a method that starts late gets its first
    gradient when the network's parameters already have theirs.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if group.get("fused") and group.get("momentum") and "momentum_buffer" not in optimizer.state[parameter]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _as_numbers(state: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's state for a checkpoint, independent of the device."""
    groups = [group | {"lr": float(group["lr"])} for group in state["param_groups"]]
    return state | {"param_groups": groups}


def _as_of(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A checkpoint's optimiser state with this optimiser's own device flags and learning-rate tensors."""
    own = [{name: group[name] for name in ("lr", *HOW) if name in group} for group in optimizer.param_groups]
    return state | {"param_groups": [group | how for group, how in zip(state["param_groups"], own, strict=True)]}


class _AnyIteration:
    """Stands for the iteration number while a CUDA graph is captured: any use of its value raises TypeError."""

    def _refuse(self, *_: object) -> Any:
        raise TypeError("the method uses the number of the iteration")

    __eq__ = __ne__ = __bool__ = __index__ = __int__ = __float__ = __hash__ = _refuse  # type: ignore[assignment]


_ANY_ITERATION: Any = _AnyIteration()
