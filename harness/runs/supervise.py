"""A parent process that writes the record if the process that trains is killed. Never imports torch."""

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

LINES = 20  # of the child's log, kept for the record
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_AFTER_CTRL_C = 2.0  # before it is passed on: a terminal has sent it to the child too
SECONDS_BETWEEN_CTRL_C = 10.0  # Python drops a KeyboardInterrupt that is raised in a destructor, so it is repeated
SECONDS_TO_DRAIN = 2.0  # the pipe, which a process that the child left behind may hold open
# Signals that ask a process to end; a process that dies of any other signal was killed or crashed.
ASKED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

enabled = False  # `python -m harness` turns it on; a program that calls the verbs is not forked


def continue_in_child(on_killed: Callable[[int, list[str]], int]) -> None:
    """Fork, and return only in the child. The parent passes signals on, waits, and exits with the child's status.

    If the child dies of a signal other than those in `ASKED` (SIGKILL, SIGSEGV ...), the parent calls `on_killed` with
    the signal's number and the last lines of the child's standard error (none if that is a terminal) and exits with its
    value. If the parent dies, the child ends too. Call it before torch is imported: forking is safe with one thread.
    """
    if not enabled or threading.active_count() > 1:
        return
    pipe = None if sys.stderr.isatty() else os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent, child = os.getpid(), os.fork()
    if child == 0:
        if pipe:
            os.dup2(pipe[1], 2)
            os.close(pipe[0])
            os.close(pipe[1])
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        return
    tail: deque[str] = deque(maxlen=LINES)
    reader = None
    if pipe:
        os.close(pipe[1])
        reader = threading.Thread(target=_pass_on, args=(pipe[0], tail), daemon=True)
        reader.start()
    _pass_signals_on(child)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if reader:
        reader.join(SECONDS_TO_DRAIN)
    if status < 0:
        asked = signal.SIGTERM if -status == signal.SIGUSR1 else -status
        status = 128 + asked if -status in ASKED else on_killed(-status, list(tail))
    sys.stderr.flush()
    os._exit(status)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGKILL)


def _pass_on(descriptor: int, tail: deque[str]) -> None:
    """Copy lines to standard error as they come, and keep the last ones."""
    with os.fdopen(descriptor, encoding="utf-8", errors="replace", newline="") as lines:
        for line in lines:
            sys.stderr.write(line)
            sys.stderr.flush()
            tail.append(line.rstrip())


def _pass_signals_on(child: int) -> None:
    """Pass SIGTERM, SIGUSR1 and Ctrl-C on to the child.

    A scheduler or a terminal may have sent them to the child too. So the first SIGTERM is passed on as SIGUSR1, which
    asks for the same however often it comes, and Ctrl-C is passed on only while the child does not end by itself. The
    handlers take no lock, because one may interrupt another.
    """

    def send(number: int) -> None:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(child, number)

    def ask(*_: object) -> None:
        send(signal.SIGUSR1)

    def terminate(*_: object) -> None:
        ask()
        signal.signal(signal.SIGTERM, terminate_at_once)

    def terminate_at_once(number: int, _: object) -> None:
        send(number)
        send(number)  # the child ends at the second

    signal.signal(signal.SIGUSR1, ask)
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGALRM, lambda *_: send(signal.SIGINT))
    times = SECONDS_AFTER_CTRL_C, SECONDS_BETWEEN_CTRL_C
    signal.signal(signal.SIGINT, lambda *_: signal.setitimer(signal.ITIMER_REAL, *times))
