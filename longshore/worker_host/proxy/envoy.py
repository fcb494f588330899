"""The local Envoy process: started, watched, started again, adopted by the next daemon, stopped.

Envoy inherits a lock (`locks`) whose text is its pid, which also works for a process that is not our child: that is how
the next daemon finds it. It runs in a session of its own and writes to a log file, so that a killed daemon costs no
request.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import structlog

from longshore.schemas.failures import LongshoreError
from longshore.worker_host import locks
from longshore.worker_host.proxy.bootstrap import ADS_CLUSTER, Bootstrap
from longshore.worker_host.proxy.stats import ClusterStats, parse_stats
from longshore.xds.listeners import STAT_PREFIX

_log = structlog.get_logger()

# Seconds. Envoy answered on its admin socket 0.1 to 0.3 s after its start; a loaded device may take far longer.
START_TIMEOUT = 30.0
# How long a running Envoy may be silent before it is taken for wedged and replaced.
ADOPT_TIMEOUT = 5.0
ADMIN_TIMEOUT = 5.0
# How long Envoy may take to exit once nothing is in flight; then it is killed.
EXIT_TIMEOUT = 5.0
POLL_INTERVAL = 0.05

# The first restart does not wait, the following ones up to 5 s; a minute of life makes it a first one again.
RESTART_BASE, RESTART_CAP, RESTART_FORGET = 0.1, 5.0, 60.0

# Writes its own pid into the lock file, then becomes Envoy: there is no moment in which it lives without its pid.
_LAUNCH = 'echo $$ > "$0" && exec "$@"'


class Envoy:
    """`run` is the short directory of sockets (mode 0700), `state` the daemon's folder, for bootstrap and log.

    `on_restart` hears of each unwanted end that was made good, with the number of restarts so far.
    """

    def __init__(
        self,
        run: Path,
        *,
        node_id: str,
        ads_socket: Path,
        state: Path,
        on_restart: Callable[[int], None] | None = None,
        drain_timeout: float = 60.0,
    ) -> None:
        self._bootstrap = Bootstrap(node_id=node_id, ads_socket=ads_socket, admin_socket=run / "admin.sock")
        self._lock = run / "envoy.lock"
        self._file = state / "envoy.json"
        self._log_file = state / "envoy.log"
        self._on_restart = on_restart
        self._drain_timeout = drain_timeout
        self._child: subprocess.Popen[bytes] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The process that serves, None while there is none."""
        return locks.holder(self._lock)

    async def ensure(self) -> bool:
        """Adopt the Envoy that runs here, or start one; from now on it is started again whenever it ends.

        Adopted is only an Envoy that answers for our node id and was started from the same bootstrap; another is
        stopped first. Returns when its admin socket answers (`Traffic.settled` says when it serves), and whether it was
        adopted.
        Raises LongshoreError ENVOY_MISSING, or ENVOY_WARM_TIMEOUT with its last log lines when it does not start.
        """
        if self._lives() and not await self._adopt():
            await self._end()
        adopted = self._lives()
        if not adopted:
            await self._start()
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="envoy-watcher")
        return adopted

    async def stop(self) -> None:
        """Let requests in flight finish (at most `drain_timeout` seconds), then end Envoy."""
        self.release()
        if self._lives():
            with suppress(httpx2.HTTPError):  # a deaf Envoy cannot drain; it is ended all the same
                await self._drain()
            await self._end()

    def release(self) -> None:
        """Watch no longer and leave Envoy running: handover to the next daemon."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def stats(self) -> dict[str, ClusterStats]:
        """Return what each cluster has done since it was added. Raises httpx2.HTTPError while Envoy is away."""
        answer = await self._admin("GET", "/stats?format=json&usedonly")
        return parse_stats(answer.json())

    async def arriving(self) -> int:
        """Return how many requests Envoy has that no runner has got yet; 0 while Envoy is away."""
        names = f"^(http\\.{STAT_PREFIX}\\.downstream|cluster\\..*\\.upstream)_rq_active$"
        try:
            answer = await self._admin("GET", f"/stats?format=json&filter={quote(names)}")
        except httpx2.HTTPError:
            return 0
        counts = {entry["name"]: int(entry["value"]) for entry in answer.json()["stats"] if "value" in entry}
        ads = f"cluster.{ADS_CLUSTER}."
        return sum(
            count if name.startswith("http.") else -count for name, count in counts.items() if not name.startswith(ads)
        )

    async def _adopt(self) -> bool:
        if not self._started_from(self._bootstrap.text()):
            _log.warning("envoy_not_adopted", pid=self.pid, reason="its bootstrap differs")
            return False
        try:
            await self._until_it_answers(ADOPT_TIMEOUT)
        except LongshoreError as error:
            _log.warning("envoy_not_adopted", pid=self.pid, reason=str(error))
            return False
        _log.info("envoy_adopted", pid=self.pid)
        return True

    async def _start(self) -> None:
        # Beside our own interpreter as well: a service manager's PATH seldom has the environment's programs.
        program = shutil.which("envoy") or shutil.which("envoy", path=str(Path(sys.executable).parent))
        if program is None:
            raise LongshoreError("ENVOY_MISSING", "no program `envoy` on the PATH")
        arguments = ["--config-path", str(self._file), "--disable-hot-restart", "--log-level", "warning"]
        self._child = self._spawn([program, *arguments, "--drain-strategy", "immediate"])
        await self._until_it_answers(START_TIMEOUT)
        _log.info("envoy_started", pid=self._child.pid)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        self._file.write_text(self._bootstrap.text())
        lock = locks.take(self._lock)
        try:
            os.truncate(lock, 0)
            self._bootstrap.admin_socket.unlink(missing_ok=True)
            with self._log_file.open("ab") as log:
                return subprocess.Popen(
                    ["/bin/sh", "-c", _LAUNCH, str(self._lock), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[lock],
                    start_new_session=True,
                    env={"PATH": os.environ.get("PATH", os.defpath)},  # none of the daemon's credentials
                )
        finally:
            os.close(lock)

    def _started_from(self, text: str) -> bool:
        return self._file.exists() and self._file.read_text() == text

    async def _until_it_answers(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._lives():
            with suppress(httpx2.HTTPError):  # not yet
                answer = await self._admin("GET", "/server_info")
                node_id = answer.json()["node"]["id"]
                if node_id != self._bootstrap.node_id:
                    raise LongshoreError("ENVOY_WARM_TIMEOUT", f"the Envoy here belongs to {node_id}")
                return
            await asyncio.sleep(POLL_INTERVAL)
        fate = "gave no answer" if self._lives() else "ended"
        raise LongshoreError(
            "ENVOY_WARM_TIMEOUT", f"Envoy {fate}; its log is {self._log_file}", details=_tail(self._log_file)
        )

    async def _watch(self) -> None:
        pause = 0.0
        while True:
            since = time.monotonic()
            await self._until(self._gone, math.inf)
            pause = 0.0 if time.monotonic() - since > RESTART_FORGET else pause
            await asyncio.sleep(pause)
            pause = min(max(2 * pause, RESTART_BASE), RESTART_CAP)
            try:
                await self._restart()
            except Exception as error:  # noqa: BLE001 (a watcher that ended would leave the device without Envoy)
                _log.error("envoy_restart_failed", error=str(error), retry_in=pause)

    async def _restart(self) -> None:
        try:
            await self._start()
        except LongshoreError:
            await self._end()  # it may live and be deaf
            raise
        self.restarts += 1
        _log.warning("envoy_restarted", pid=self.pid, restarts=self.restarts)
        if self._on_restart is not None:
            self._on_restart(self.restarts)

    def _lives(self) -> bool:
        if self._child is not None:
            self._child.poll()  # takes a child's exit status, so that it does not stay as a zombie
        return locks.held(self._lock)

    async def _drain(self) -> None:
        await self._admin("POST", "/drain_listeners?graceful&skip_exit")  # answers now say `connection: close`
        await self._admin("POST", "/drain_listeners")  # and nobody new is let in
        await self._until(self._idle, self._drain_timeout)

    async def _idle(self) -> bool:
        answer = await self._admin("GET", f"/stats?format=json&filter=http.{STAT_PREFIX}.downstream_rq_active")
        return not any(entry.get("value") for entry in answer.json()["stats"])

    async def _end(self) -> None:
        """SIGTERM, then SIGKILL. Envoy obeys the first at once and finishes nothing: drain before."""
        for signal_ in (signal.SIGTERM, signal.SIGKILL):
            pid = self.pid or self._newborn
            if pid is None:
                return
            with suppress(ProcessLookupError):
                os.kill(pid, signal_)
            if await self._until(self._gone, EXIT_TIMEOUT):
                return

    @property
    def _newborn(self) -> int | None:
        """A child that has not written its pid yet."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    async def _gone(self) -> bool:
        return not self._lives()

    @staticmethod
    async def _until(condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not await condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_INTERVAL)
        return True

    async def _admin(self, method: str, path: str) -> Any:
        transport = httpx2.AsyncHTTPTransport(uds=str(self._bootstrap.admin_socket))
        async with httpx2.AsyncClient(transport=transport, timeout=ADMIN_TIMEOUT) as client:
            answer = await client.request(method, f"http://envoy{path}")
            answer.raise_for_status()
            return answer


def _tail(log: Path) -> str:
    """Return the last 2 KB of a log."""
    if not log.exists():
        return ""
    return log.read_bytes()[-2048:].decode(errors="replace")
