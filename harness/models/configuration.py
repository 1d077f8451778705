"""Reads mmsegmentation's configurations."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from harness.errors import UserError, unknown
from harness.models.spec import ModelSpec


def network_config(spec: ModelSpec, num_classes: int) -> Any:
    """The `model` part of mmsegmentation's configuration with the spec's overrides: an mmengine ConfigDict.

    Raises UserError if mmsegmentation has no such configuration.
    """
    model = _read(spec)
    model.pretrained = None  # weights are loaded by harness.models.weights
    model.backbone.pop("init_cfg", None)
    for head in _heads(model):
        head.num_classes = num_classes
    _replace_sync_bn(model)
    if not model.data_preprocessor.get("bgr_to_rgb"):
        raise UserError(f"model {spec.name}: {spec.config} expects BGR images, and only RGB models are supported")
    return model


def initial_weights(spec: ModelSpec) -> str:
    """The URL of the configuration's initial weights. Raises UserError if it names none."""
    model = _read(spec)
    address = model.get("pretrained") or (model.backbone.get("init_cfg") or {}).get("checkpoint")
    if not address:
        raise UserError(f"model {spec.name}: {spec.config} names no initial weights: correct its `weights`")
    return full_address(str(address))


def full_address(address: str) -> str:
    """The URL of an address: https://, open-mmlab://NAME, mmcls://NAME, torchvision://NAME or detectron2://PATH.

    Raises UserError for an unknown name or kind of address.
    """
    from mmengine.runner.checkpoint import get_external_models, get_mmcls_models, get_torchvision_models

    known = {"open-mmlab": get_external_models, "mmcls": get_mmcls_models, "torchvision": get_torchvision_models}
    scheme, _, name = address.partition("://")
    if scheme in ("http", "https"):
        return address
    if scheme == "detectron2":
        return f"https://dl.fbaipublicfiles.com/detectron2/{name}"
    if scheme not in known:
        raise unknown("kind of address", f"{scheme}://", [f"{each}://" for each in (*known, "detectron2", "https")])
    names = known[scheme]()
    if name not in names:
        near = ", ".join(get_close_matches(address, [f"{scheme}://{each}" for each in names], n=3))
        raise UserError(f"mmengine knows no weights {address}: {f'nearest are {near}' if near else 'pass a file'}")
    return str(names[name])


@contextmanager
def quiet() -> Iterator[None]:
    """Silence mmsegmentation's warnings about parts that are not used here."""
    with warnings.catch_warnings():
        for message in (
            "Fail to import ``MultiScaleDeformableAttention``",  # an operation that needs mmcv's compiled half
            "For binary segmentation, we suggest using",  # one logit for two classes; here each class has its own
            "Default ``avg_non_ignore`` is False",  # its own loss, which `Segmenter.losses` does not call
        ):
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        yield


def _read(spec: ModelSpec) -> Any:
    with quiet():
        import mmseg
        from mmengine.config import Config

    path = Path(mmseg.__file__).parent / ".mim" / "configs" / spec.config
    if not path.is_file():
        raise UserError(f"model {spec.name}: mmsegmentation has no configuration {spec.config}: correct its `config`")
    config = Config.fromfile(path)
    config.merge_from_dict({"model": spec.overrides})
    return config.model


def _heads(model: Any) -> list[Any]:
    """The configurations of all heads; a cascade has several decode heads."""
    found: list[Any] = []
    for heads in (model.decode_head, model.get("auxiliary_head") or []):
        found += heads if isinstance(heads, list) else [heads]
    return found


def _replace_sync_bn(config: Any) -> None:
    """Plain batch norm: SyncBN does not run on a CPU. The trainer converts it back on several GPUs."""
    if isinstance(config, dict):
        if config.get("type") == "SyncBN":
            config["type"] = "BN"
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for value in config:
            _replace_sync_bn(value)
