"""`python -m harness`. Says in one sentence what to do where the Python that was called lacks the packages."""

import sys


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
        print(
            f"error: {sys.executable} has no package {package}: run `make .venv/ready` and use .venv/bin/python, "
            "or activate the environment with `. .venv/bin/activate`",
            file=sys.stderr,
        )
        return 2


if __name__ == "__main__":
    sys.exit(run())
