"""The static site, made of the committed records of a machine and looked at in a browser."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from browser import CHROMIUM, browsing

from harness.experiment import discovery

REPOSITORY = Path(__file__).parents[2]
RECORDS = REPOSITORY / "results/reference/h100"


def make_site(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", "site", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    made = make_site("--results", RECORDS, "--out", out, "--no-figures")
    assert made.returncode == 0, made.stderr
    return out


class Links(HTMLParser):
    """Addresses and ids of a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found["href"]] if tag == "a" and "href" in found else []
        self.ids |= {found["id"]} if "id" in found else set()


@pytest.mark.slow
def test_there_is_a_page_for_every_experiment_and_method_and_every_link_leads_somewhere(site):
    pages = {path.name: Links(path.read_text(encoding="utf-8")) for path in site.glob("*.html")}
    experiments = {f"h100-{path.name}.html" for path in (RECORDS / "runs").iterdir()}
    assert pages.keys() == {"index.html", "submit.html"} | experiments | {
        f"method-{name}.html" for name in discovery.names()
    }
    assert experiments | {f"method-{name}.html" for name in discovery.names()} <= set(pages["index.html"].addresses)
    for name, page in pages.items():
        for address in page.addresses:
            if address.startswith(("https://", "data:")):
                continue
            target, _, key = address.partition("#")
            assert target in ("", *pages), (name, address)
            assert not key or key in pages[target or name].ids, (name, address)


@pytest.mark.slow
def test_an_experiment_is_shown_with_the_networks_that_were_trained(site):
    text = (site / "h100-camvid.html").read_text(encoding="utf-8")  # of config/camvid.yaml's two networks one has runs
    assert "EfficientNet-Lite0" in text
    assert "HRNet-W48" not in text
    assert "harness report camvid --set &#39;models=[lite0_fpn]&#39; --results results/reference/h100" in text


@pytest.mark.slow
def test_a_methods_page_has_its_paper_its_options_its_code_and_the_committed_figures(site):
    text = (site / "method-contextrast.html").read_text(encoding="utf-8")
    about = discovery.about("contextrast")
    assert about.paper in text
    assert f'href="{about.url}"' in text
    assert "class Contextrast(" in text
    assert all(f"<dt>{option}</dt>" in text for option in discovery.options("contextrast"))
    table = pd.read_csv(RECORDS / "reports/camvid-small/tables/miou.csv")
    (row,) = table[(table["arm"] == "contextrast") & (table["protocol"] == "whole")].to_dict("records")
    assert f">{row['mean']:.2f} <small>± {row['sd']:.2f}" in text
    assert f"{row['gain']:+.2f} <small>[{row['low']:+.2f}, {row['high']:+.2f}]" in text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_opens_without_a_complaint_and_fits_the_window(site, tmp_path, width):
    with browsing(tmp_path) as browser:
        for path in site.glob("*.html"):
            browser.open(path, width)
            assert browser.complaints == [], path.name
            assert {address.split(":")[0] for address in browser.requests} <= {"file", "data"}
            excess = browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert excess == 0, path.name


@pytest.mark.slow
def test_a_folder_without_runs_is_refused_in_a_sentence(tmp_path):
    made = make_site("--results", tmp_path, "--out", tmp_path / "site")
    assert made.returncode == 2
    assert re.fullmatch(
        r"error: there are no runs in \S+: give a results folder, the one that holds runs/\n", made.stderr
    )
    assert not (tmp_path / "site").exists()
