"""The command line, `python -m harness VERB`. Heavy imports stay inside the verbs."""

import signal
import sys

import typer
from typer.exceptions import TyperException

from harness.cli import costs, data, experiments, reports, runs  # importing them adds their verbs
from harness.cli.common import app
from harness.errors import RunFailed, UserError

INTERRUPTED = 128 + signal.SIGINT

__all__ = ["costs", "data", "experiments", "main", "reports", "runs"]


def main() -> int:
    """The exit status of the command line: 0, 1 for a failed run, 2 for a mistake by the user."""
    try:
        status = app(standalone_mode=False)
        if status == INTERRUPTED:  # how typer reports Ctrl-C
            raise KeyboardInterrupt
        return status if isinstance(status, int) else 0
    except UserError as error:
        return _say(error, 2)
    except TyperException as error:  # an unknown verb or option, a missing value
        return _say(error.format_message(), 2) if error.format_message() else 2  # no verb: the help is shown
    except RunFailed as error:
        return _say(error, 1)
    except (typer.Abort, KeyboardInterrupt):
        return _say("interrupted: type the same command again to continue", INTERRUPTED)
    except OSError as error:  # a full disk, a folder without write permission
        place = f" {error.filename}" if error.filename else ""
        return _say(f"the operating system refused{place}: {error.strerror or error}", 2)


def _say(message: object, status: int) -> int:
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return status
