"""The one way out of a process (DESIGN §3 Exit).

A short process that used a temporalio 1.35 client aborts at interpreter exit in a third of runs, so no command
of ours reaches interpreter exit: each flushes what it has said, and leaves.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import NoReturn

# Codes that shells and supervisors know: 2 is a usage error (sysexits' older habit), 128 + 2 a SIGINT.
OK = 0
FAILED = 1
USAGE = 2
CHANGES = 2
"""Of `longshore plan`, whose usage errors are 1: there is something to do, as other tools of that verb say it."""
INTERRUPTED = 130


def leave(code: int) -> NoReturn:
    """End this process now: flush logs, stdout and stderr, then `os._exit`. No atexit handler and no `finally` runs."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # A reader that went away (`longshore status | head -1`) is no failure of the command.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
