"""`python -m harness`. If the Python that runs it lacks a package, one sentence says what to do."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def run() -> int:
    """The command line's exit status; 2 with a sentence for a package that this Python does not have."""
    try:
        from harness.cli import main  # brings in the first packages, a verb the others
        from harness.runs import supervise

        supervise.enabled = True
        return main()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "harness", "methods"):  # a fault of the project or of a method's file: where says the stack
            raise
        if (CHECKOUT / "Makefile").exists():
            mend = "run `make .venv/ready`, then use .venv/bin/python or activate it with `. .venv/bin/activate`"
        else:  # installed by pip, perhaps without the extra that this verb needs
            mend = 'install the project with all it needs: `pip install "CHECKOUT[train,report,snakemake]"`'
        print(f"error: {sys.executable} has no package {package}: {mend}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(run())
