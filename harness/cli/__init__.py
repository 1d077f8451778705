"""The command line, `python -m harness VERB`. Heavy imports stay inside the verbs."""

import errno
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
        return _say(_refusal(error), 2)


def _refusal(error: OSError) -> str:
    """What the operating system refused, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" of {error.filename}" if error.filename else ""
        return f"the disk{place} is full: make room, then type the same command again to continue"
    if error.filename and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission for {error.filename}: change its permissions, or choose another folder"
    if error.filename and error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{error.filename} is or leads through a file: choose another folder"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _say(message: object, status: int) -> int:
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return status
