"""docs/methods.md says what the methods' files say."""

import pytest

from harness.experiment import discovery
from harness.reporting.methods_page import extra_memory, methods_page
from methods.contextrast import Contextrast
from methods.pixel_contrast import PixelContrast


def test_the_page_is_current(repository):
    page = (repository / "docs" / "methods.md").read_text()
    assert page == methods_page(), "python -m harness list methods --markdown > docs/methods.md"


def test_every_method_has_a_line_with_its_cost_and_its_paper():
    lines = {line.split("`")[1]: line for line in methods_page().splitlines() if "<br>`" in line}
    assert list(lines) == discovery.names()
    assert lines["cross_entropy"] == (
        "| Cross entropy<br>`cross_entropy` | - | The network's own cross entropy and nothing else. | - | - | - |"
    )
    # 48, 96, 192 and 384 channels: a 1x1 classifier of 19 classes has 20 numbers a channel but for one of each class.
    assert f"| {(19 * 720 + 4 * 19) / 1e6:.2f} M |" in lines["deep_supervision"]
    # Table XV of Contextrast++ counts 382,624.
    assert "[CVPR 2024](https://arxiv.org/abs/2404.10633)" in lines["contextrast"]
    assert f"| 0.38 M | {extra_memory(Contextrast)[0]:.2f} GiB |" in lines["contextrast"]


def test_the_readme_links_every_loss(repository):
    row = next(line for line in (repository / "README.md").read_text().splitlines() if line.startswith("| losses"))
    for name in set(discovery.names()) - {"cross_entropy"}:
        about = discovery.about(name)
        linked = f"[{about.title}]({about.url})" if about.url else about.title
        assert f"{linked} ({about.published})" in row
    assert row.count(";") == len(discovery.names()) - 2


@pytest.mark.parametrize(("kind", "stated"), [(Contextrast, 1), (PixelContrast, 2), (object, None)])
def test_the_extra_memory_is_read_from_the_docstring(kind, stated):
    found = extra_memory(kind)
    assert found is None if stated is None else len(found) == stated
