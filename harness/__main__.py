"""`python -m harness` and `contextrast-bench`. If a package is missing, one sentence says what to install."""

import sys


def run() -> int:
    """The exit status of the command line; 2 if this Python lacks a package."""
    try:
        from harness.cli import main  # imports the first packages; each verb imports the others
        from harness.runs import supervise

        supervise.enabled = True
        return main()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "harness", "methods"):  # a bug here or in a method's file: show the stack
            raise
        from harness.compute.shipped import HARNESS

        todo = 'run `pip install ".[train,report]"` in your clone of contextrast-bench'
        if (HARNESS.parent / "Makefile").is_file():
            todo = "run `make .venv/ready` and use .venv/bin/python, or activate it with `. .venv/bin/activate`"
        print(f"error: {sys.executable} has no package {package}: {todo}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(run())
