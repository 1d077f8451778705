"""Makes a virtual environment with the locked packages: `python requirements/install.py .venv`, run by make.

Needs nothing but Python and pip. torch comes first, by itself, with the requirements of its own build (torch.txt); all
other packages are installed as the lock lists them, without resolving anything (lock.txt).
"""

import argparse
import re
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
SUPPORTED = ((3, 11), (3, 13))
LARGE_MEGABYTES = 20
DOWNLOADING = re.compile(r"\s*Downloading (?P<file>[^/\s]+)-[^-]+-[^-]+-\S+ \((?P<megabytes>[\d.]+) MB\)")


def main():
    """Install into the given folder; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--torch", default="", choices=["", "cpu"], help="cpu: a build without CUDA")
    options = parser.parse_args()
    if not SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        return refuse(
            "Python 3.11, 3.12 or 3.13 is needed and this is {}.{}: install one of them, "
            "then run make PYTHON=python3.12 with the same target".format(*sys.version_info[:2])
        )
    venv.create(options.folder.resolve(), with_pip=True)  # venv refuses a link, as to a disk with more room
    python = options.folder / "bin" / "python"
    print(f"Installing the locked packages into {options.folder}: torch first, then the others.", flush=True)
    if pip(python, torch_requirements(options.torch)):
        if options.torch == "cpu":
            return refuse(
                "pip found no build of torch without CUDA: name a source that has one, such as the CPU index in "
                "PyTorch's installation guide, in PIP_EXTRA_INDEX_URL, or leave out TORCH=cpu"
            )
        return refuse("torch could not be installed: pip's message above says why; make continues where it stopped")
    if pip(python, ["--no-deps", "-r", str(HERE / "lock.txt")]):
        return refuse("the packages could not be installed: pip's message above says why; run make again afterwards")
    return subprocess.call(
        [str(python), "-c", "import torch; print(f'torch {torch.__version__}, GPU: {torch.cuda.is_available()}')"]
    )


def torch_requirements(build):
    """What pip is asked for: torch as torch.txt pins it, with build "cpu" in its build without CUDA."""
    listed = HERE / "torch.txt"
    pinned = next(line for line in listed.read_text().splitlines() if line.startswith("torch=="))
    without_cuda = build == "cpu" and sys.platform == "linux"  # elsewhere no build has CUDA, or a label that says so
    return ["-r", str(listed)] + ([pinned + "+cpu"] if without_cuda else [])


def pip(python, arguments):
    """Run pip install, showing its large downloads and its errors alone; returns its exit status."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    process = subprocess.Popen(command + arguments, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        large = DOWNLOADING.match(line)
        if large and float(large["megabytes"]) >= LARGE_MEGABYTES:
            print(f"  downloading {large['file']}, {float(large['megabytes']):.0f} MB", flush=True)
        elif line.startswith("Installing collected packages"):
            print(f"  unpacking {1 + line.count(',')} packages", flush=True)
    return process.wait()


def refuse(message):
    """Print why nothing, or not everything, was installed; returns the exit status of a user's mistake."""
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
