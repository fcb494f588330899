"""Run a program that must not outlive its caller. Standard library only: it is started as a file, with `python -I`.

Its standard input is a pipe that the caller holds open; when the caller is gone, even by kill -9, the pipe ends and
the program is told to stop. SIGTERM and SIGINT are passed on. The exit status is the program's.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

STOP_SECONDS = 10.0


def main(argv: list[str]) -> int:
    program = subprocess.Popen(argv, stdin=subprocess.DEVNULL)

    def stop(*_: object) -> None:
        program.terminate()

    def stop_when_alone() -> None:
        sys.stdin.buffer.read()
        program.terminate()
        try:
            program.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            program.kill()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=stop_when_alone, daemon=True).start()
    return program.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
