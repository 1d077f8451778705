"""The model `plain`, two convolutions: without mmsegmentation a process that trains starts two seconds sooner."""

FILES = {
    "plain.yaml": "source: plain:Plain\ntaps: {channels: [4], strides: [2]}\n",
    "plain.py": """
from torch import nn


class Plain(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, 2, padding=1)
        self.head = nn.Conv2d(4, num_classes, 1)

    def features(self, images):
        return [self.backbone(images)]

    def logits(self, maps):
        return self.head(maps[0])
""",
}


def write_plain(folder):
    """Write it into `folder`, which is returned: what CONTEXTRAST_BENCH_MODELS names."""
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder
