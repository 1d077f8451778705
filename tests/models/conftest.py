from pathlib import Path
from typing import Any

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS


class MMSegmentation:
    """mmsegmentation by its own path: configuration, build, preprocessor on BGR images, encode_decode."""

    configs = Path(mmseg.__file__).parent / ".mim" / "configs"

    def configuration(self, path: str, classes: int) -> Any:
        """A configuration as it is in the package, but for batch norm over one process and the classes."""
        config = Config.fromfile(self.configs / path)
        over_one_process(config.model)
        config.model.pretrained = None
        config.model.backbone.pop("init_cfg", None)
        for heads in (config.model.decode_head, config.model.get("auxiliary_head") or []):
            for head in heads if isinstance(heads, list) else [heads]:
                head.num_classes = classes
        return config

    def build(self, model: Any, state: dict[str, torch.Tensor] | None = None) -> Any:
        """The segmentor of a configuration's `model` part in eval mode, with `state` loaded strictly."""
        with DefaultScope.overwrite_default_scope("mmseg"):
            network = MODELS.build(model)
        if state is not None:
            network.load_state_dict(state, strict=True)
        return network.eval()

    def inputs(self, network: Any, images: torch.Tensor) -> torch.Tensor:
        return network.data_preprocessor({"inputs": [image.flip(0) for image in images]}, training=False)["inputs"]

    def logits(self, network: Any, images: torch.Tensor) -> torch.Tensor:
        """Logits at the images' size for RGB images uint8 [B, 3, H, W]."""
        with torch.no_grad():
            return network.encode_decode(self.inputs(network, images), [{"img_shape": images.shape[-2:]}])


def over_one_process(part: Any) -> None:
    if isinstance(part, dict) and part.get("type") == "SyncBN":
        part["type"] = "BN"
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        over_one_process(inner)


@pytest.fixture(scope="session")
def mmsegmentation() -> MMSegmentation:
    return MMSegmentation()
