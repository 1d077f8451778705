"""Street scenes rendered from a seed, with exact labels in CamVid's 11 classes. See `render` and `write`."""

from harness.datasets.scenes.files import write
from harness.datasets.scenes.scene import render, weather_of

__all__ = ["render", "weather_of", "write"]
