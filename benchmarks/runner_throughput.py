"""Requests per second and latency of one runner over its Unix socket, beside a server that does nothing.

The floor is a bare `asyncio.Protocol` that answers every packet with a fixed response, in a process of its own and
under the same load: what is above it is framing, validation, two threads and the model's three functions.

    python3 dev.py bench runner_throughput [--connections 1 8 32] [--seconds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from longshore.worker_host import locks
from longshore.worker_host.runners import runner, runner_client
from longshore.worker_host.runners.support import Support

BODY = json.dumps({"text": "The delivery was late, but the product is lovely. " * 4}).encode()
REQUEST = b"POST /infer/bench HTTP/1.1\r\nhost: bench\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
MODEL = """
class Model:
    def predict(self, batch):
        return [len(text) for text in batch]

def load(artifacts, config):
    return Model()

def before(value, config):
    return value["text"]

def after(value, config):
    return {"length": value}
"""
FLOOR = """
import asyncio, sys
ANSWER = b'HTTP/1.1 200 OK\\r\\ncontent-length: 14\\r\\ncontent-type: application/json\\r\\n\\r\\n{"length":200}'

class Floor(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(ANSWER)

async def main():
    server = await asyncio.get_running_loop().create_unix_server(Floor, sys.argv[1])
    await server.serve_forever()

asyncio.run(main())
"""


class Client(asyncio.Protocol):
    """Asks again as soon as it is answered; `seconds` holds how long each answer took."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.asked = time.perf_counter()
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if separator and len(body) == int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            assert head.startswith(b"HTTP/1.1 200 "), head
            self.seconds.append(time.perf_counter() - self.asked)
            self.buffer = b""
            self.ask()


async def load(socket: Path, pid: int, connections: int, seconds: float) -> dict[str, float]:
    """Put a closed loop of that many clients on the socket, which the process `pid` serves."""
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    made = [await loop.create_unix_connection(lambda: Client(latencies), str(socket)) for _ in range(connections)]
    await asyncio.sleep(seconds / 5)  # warm
    latencies.clear()
    busy, start = cpu_seconds(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    busy = cpu_seconds(pid) - busy
    elapsed, taken = time.perf_counter() - start, sorted(latencies)
    for transport, _ in made:
        transport.abort()
    return {
        "requests_per_second": round(len(taken) / elapsed),
        "p50_ms": round(statistics.median(taken) * 1000, 3),
        "p99_ms": round(taken[len(taken) * 99 // 100] * 1000, 3),
        "cpu_us": round(busy / len(taken) * 1e6),
    }


def cpu_seconds(pid: int) -> float:
    """What the server itself has used: the figure that a busy machine disturbs least."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


@contextmanager
def serving(socket: Path, argv: list[str], lock: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, pass_fds=[] if lock is None else [lock]) as process:
        try:
            while not socket.exists():
                time.sleep(0.01)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


async def runner_config(folder: Path, batch_size: int, lock: int) -> Path:
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "bench.py").write_text(MODEL)
    text = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
    config = {
        "instance_id": "0123456789", "deployment_id": "bench", "generation": 1, "version": "1.0.0", "digest": "0" * 64,
        "lock_fd": lock, "socket": str(folder / "runner.sock"), "last_words": str(folder / "words"),
        "checkout": str(folder / "code"), "support": str(await Support(folder / "support").materialise(sys.executable)),
        "artifacts": str(folder), "config_file": None, "entrypoint": "bench",
        "preprocessing": {"module": "bench", "function": "before", "config": {}},
        "postprocessing": {"module": "bench", "function": "after", "config": {}},
        "input_schema": text, "output_schema": {"type": "object", "required": ["length"]},
        "batch_size": batch_size, "max_queue": 1024, "max_body": 1 << 20,
    }  # fmt: skip
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


async def measure(connections: list[int], seconds: float, batch_sizes: list[int]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="bench-") as name:
        folder = Path(name)
        floors = {}
        socket = folder / "floor.sock"
        with serving(socket, [sys.executable, "-I", "-c", FLOOR, str(socket)]) as floor:
            for count in connections:
                floors[count] = await load(socket, floor.pid, count, seconds)
                rows.append({"server": "floor", "connections": count, **floors[count], "of_floor": 1.0})
        for batch_size in batch_sizes:
            socket, lock = folder / "runner.sock", locks.take(folder / "lock")
            config = await runner_config(folder, batch_size, lock)
            with serving(socket, [sys.executable, "-I", runner.__file__, str(config)], lock) as process:
                os.close(lock)
                while not ((who := await runner_client.identity(socket)) and who.ready):  # noqa: ASYNC110 (another process)
                    await asyncio.sleep(0.01)
                for count in connections:
                    figures = await load(socket, process.pid, count, seconds)
                    share = figures["requests_per_second"] / floors[count]["requests_per_second"]
                    server = f"runner, batch_size {batch_size}"
                    rows.append({"server": server, "connections": count, **figures, "of_floor": round(share, 2)})
            socket.unlink(missing_ok=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time for each row")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    rows = asyncio.run(measure(options.connections, options.seconds, options.batch_sizes))
    print(f"{'server':<22} {'conns':>5} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'cpu µs':>7} {'of floor':>9}")
    line = "{server:<22} {connections:>5} {requests_per_second:>8} {p50_ms:>8} {p99_ms:>8} {cpu_us:>7} {of_floor:>9}"
    for row in rows:
        print(line.format(**row))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
