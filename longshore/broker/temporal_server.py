"""The embedded Temporal server: `temporal server start-dev` with a database file, restarted when it dies."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import socket
import sys
from contextlib import suppress
from pathlib import Path

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from longshore.broker import guardian
from longshore.schemas.failures import LongshoreError
from longshore.workflows.conventions import SEARCH_ATTRIBUTES

log = structlog.get_logger()

# It is ready in 0.3 s (measured); a large database on a slow disk takes longer.
START_SECONDS = 60.0
STOP_SECONDS = 15.0

# The guardian of a broker that was killed stops its server within 10 s.
PREDECESSOR_SECONDS = 12.0

# A server that dies at once is not started in a busy loop.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

# Cancellation reaches a device in 0.05 s instead of with its next beat; nothing depends on it (DESIGN §3).
_DYNAMIC_CONFIG = ("system.enableCancelActivityWorkerCommand=true", "frontend.WorkerCommandsEnabled=true")

# 300 activities over 50 queues in 1.1 to 1.5 s instead of 3.6 s (measured); a power cut may cost the last ones.
_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL")


class TemporalServer:
    """One child process, on loopback, whose data and log lie in `directory`."""

    def __init__(self, directory: Path, *, port: int, ui_port: int) -> None:
        self._directory = directory
        self._port = port
        self._ui_port = ui_port
        self._process: asyncio.subprocess.Process | None = None
        self._lock: int | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def ui(self) -> str:
        return f"http://127.0.0.1:{self._ui_port}"

    @property
    def log_file(self) -> Path:
        return self._directory / "temporal.log"

    async def start(self) -> None:
        """Start it and return when it answers.

        Raises LongshoreError STATE_DIR_IN_USE, PORT_CONFLICT or TEMPORAL_UNAVAILABLE. The first two come before
        anything is started: whoever listens there would be taken for our server, and a broker would work for it.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = await self._sole_user()
        try:
            for port in (self._port, self._ui_port):
                _require_free(port)
            await self._spawn_first()
        except BaseException:
            self._unlock()
            raise

    async def _spawn_first(self) -> None:
        await self._spawn()
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._until_it_answers()
        except TimeoutError as error:
            await self.stop()
            raise self._failure(f"does not answer within {START_SECONDS:g} s") from error

    async def keep_running(self) -> None:
        """Start it again, after a pause, whenever it ends. Runs until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        loop = asyncio.get_running_loop()
        while self._process is not None:
            began = loop.time()
            code = await self._process.wait()
            if loop.time() - began > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            log.error("temporal_server_died", exit_code=code, restart_in_seconds=pause, log=str(self.log_file))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            await self._spawn()

    async def stop(self) -> None:
        process, self._process = self._process, None
        self._unlock()
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            # The guardian's pipe ends with its stdin, and it kills what does not stop.
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()

    async def _spawn(self) -> None:
        binary = shutil.which("temporal") or shutil.which("temporal", path=str(Path(sys.executable).parent))
        if binary is None:
            raise LongshoreError("TEMPORAL_UNAVAILABLE", "the program `temporal` is not installed (extra `embedded`)")
        arguments = [
            "server", "start-dev", "--ip", "127.0.0.1", "--port", str(self._port), "--ui-port", str(self._ui_port),
            "--db-filename", str(self._directory / "temporal.db"), "--log-level", "warn",
            *(part for pragma in _PRAGMAS for part in ("--sqlite-pragma", pragma)),
            *(part for value in _DYNAMIC_CONFIG for part in ("--dynamic-config-value", value)),
            *(part for key in SEARCH_ATTRIBUTES for part in ("--search-attribute", f"{key.name}=Keyword")),
        ]  # fmt: skip
        with self.log_file.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", guardian.__file__, binary, *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
                pass_fds=[] if self._lock is None else [self._lock],
            )  # fmt: skip
        log.info("temporal_server_started", address=self.address, ui=self.ui)

    async def _sole_user(self) -> int:
        """Return a lock on the folder, which the guardian inherits: two servers would share one database file."""
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = asyncio.get_running_loop().time() + PREDECESSOR_SECONDS
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if asyncio.get_running_loop().time() > deadline:
                        raise LongshoreError(
                            "STATE_DIR_IN_USE", f"another `longshore up` uses {self._directory.parent}"
                        ) from None
                    await asyncio.sleep(0.1)
                else:
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise

    def _unlock(self) -> None:
        """Leave the lock to the guardian, with which it ends."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _until_it_answers(self) -> None:
        while True:
            if self._process is not None and self._process.returncode is not None:
                raise self._failure(f"ended with code {self._process.returncode}")
            try:
                client = await Client.connect(self.address)
                await client.service_client.check_health()
            except (RuntimeError, RPCError):
                await asyncio.sleep(0.1)
            else:
                return

    def _failure(self, what: str) -> LongshoreError:
        lines = self.log_file.read_text(errors="replace").splitlines()[-20:] if self.log_file.exists() else []
        return LongshoreError("TEMPORAL_UNAVAILABLE", f"the embedded Temporal server {what}", details="\n".join(lines))


def _require_free(port: int) -> None:
    """Raise LongshoreError PORT_CONFLICT where somebody listens on that port of loopback."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise LongshoreError("PORT_CONFLICT", f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from error
