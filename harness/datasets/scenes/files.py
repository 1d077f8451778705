"""A folder of rendered scenes in CamVid's layout."""

import shutil
import tempfile
from pathlib import Path

import cv2

from harness.compute.progress import track
from harness.datasets.scenes.scene import render
from harness.errors import UserError


def write(root: Path, seed: int, counts: dict[str, int], height: int = 144, width: int = 192) -> None:
    """Render a data set into the folder `root`, atomically: it is complete or, after a failure, absent.

    The layout is CamVid's. For each split such as train: `train/train_00000.png` (8-bit RGB),
    `trainannot/train_00000.png` (8-bit ids, 11 is unlabelled) and `train.txt` with a line "train/NAME.png
    trainannot/NAME.png" per picture. An existing folder, or one that another process finishes first, is kept.

    `counts`: pictures per split; `height`, `width`: their size in pixels; `seed`: see `render`. Raises UserError for an
    unknown split in `counts` or if `root` is a file, and OSError if it cannot be written.
    """
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file where the rendered scenes belong: move it or choose another folder")
    if root.is_dir() and any(root.iterdir()):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    try:
        pictures = [(split, index) for split, count in counts.items() for index in range(count)]
        lines: dict[str, list[str]] = {split: [] for split in counts}
        for split in counts:
            (temporary / split).mkdir()
            (temporary / f"{split}annot").mkdir()
        for split, index in track(pictures, "rendering street scenes", len(pictures)):
            image, label = render(seed, split, index, height, width)
            names = f"{split}/{split}_{index:05d}.png", f"{split}annot/{split}_{index:05d}.png"
            _save(temporary / names[0], cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            _save(temporary / names[1], label)
            lines[split].append(" ".join(names))
        for split, listed in lines.items():
            (temporary / f"{split}.txt").write_text("".join(f"{line}\n" for line in listed), encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp creates folders that only the owner can read
        try:
            temporary.rename(root)
        except OSError:  # another process was faster: a folder with files cannot be replaced
            if not root.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save(path: Path, pixels: cv2.typing.MatLike) -> None:
    encoded, content = cv2.imencode(".png", pixels)
    if not encoded:
        raise OSError(f"cannot encode {path}")
    path.write_bytes(content.tobytes())
