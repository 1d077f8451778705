"""A parent for the process that trains. A process that is killed cannot say so; its parent can. Never imports torch."""

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
PATIENCE = 2.0  # seconds in which a child ends on the Ctrl-C that the terminal sent it too
# Signals by which somebody asks a process to end; any other is something that befell it.
ASKED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

enabled = False  # `python -m harness` turns it on; a program that calls the verbs itself is not forked


def continue_in_child(on_killed: Callable[[int, list[str]], int]) -> None:
    """Fork, and return in the child alone. The parent passes signals on, waits, and exits with the child's status.

    If the child is killed by a signal that nobody sends to ask for its end (SIGKILL, SIGSEGV ...), `on_killed` is
    called in the parent with the signal's number and the last lines that the child wrote to standard error (none where
    that is a terminal, which showed them), and its value is the exit status. The child ends when its parent does.
    Call it before torch is imported: forking is safe while there is one thread.
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
        reader.join(PATIENCE)  # a process that the child left behind may hold the pipe
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
    """Copy lines to standard error as they come, and remember the last ones."""
    with os.fdopen(descriptor, encoding="utf-8", errors="replace", newline="") as lines:
        for line in lines:
            sys.stderr.write(line)
            sys.stderr.flush()
            tail.append(line.rstrip())


def _pass_signals_on(child: int) -> None:
    """Pass SIGTERM and Ctrl-C on, once each, although the child may have been sent them as well.

    SIGUSR1 asks as the first SIGTERM does, however often it comes: `runs.budget` sends it beside a scheduler's SIGTERM.
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
        send(number)  # of which the child heeds the second
        send(number)

    def interrupt(number: int, _: object) -> None:
        timer = threading.Timer(PATIENCE, send, (number,))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGUSR1, ask)
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, interrupt)
