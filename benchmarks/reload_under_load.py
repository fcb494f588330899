"""What callers notice of a RELOAD: latency while versions change, beside the same load while nothing changes.

Eight keep-alive connections ask one device through its Envoy; then ten pushes change the version back and forth.

    python3 dev.py bench reload_under_load [--reloads 10] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from system import System

from longshore.cli.demo.load import Load, percentile

CONNECTIONS = 8
REQUESTS_AT_REST = 5_000


def milliseconds(seconds: list[float], share: float) -> float:
    """Return the quantile `share` of some latencies, in milliseconds."""
    return round(percentile(seconds, share) * 1000, 2)


async def measure(reloads: int) -> dict[str, object]:
    """Run the whole benchmark on a system of its own."""
    system = System()
    try:
        system.start_temporal()
        system.start_broker()
        system.start_worker("worker-a")
        for version in ("1.0.0", "1.1.0"):
            system.model.release(version, factor=1)
            system.registry.deployment("ten", system.model, version)
            await system.outcome(system.registry.push(f"Warm {version}"))
        url = f"http://127.0.0.1:{system.data_ports['worker-a']}/infer/ten"
        async with Load(url, {"x": 1}, connections=CONNECTIONS) as load:
            await load.more(REQUESTS_AT_REST)
            at_rest = list(load.latencies)
            for number in range(reloads):
                version = ("1.0.0", "1.1.0")[number % 2]
                system.registry.deployment("ten", system.model, version)
                sha = system.registry.push(f"To {version}")
                await system.webhook()
                await system.outcome(sha)
            during = list(load.latencies)[len(at_rest) :]
    finally:
        system.stop()
    return {
        "reloads": reloads,
        "requests": load.total,
        "failed": load.failed,
        "by_version": dict(load.versions),
        "at_rest_ms": {"p50": milliseconds(at_rest, 0.5), "p99": milliseconds(at_rest, 0.99)},
        "during_reloads_ms": {
            "p50": milliseconds(during, 0.5),
            "p99": milliseconds(during, 0.99),
            "max": milliseconds(during, 1.0),
        },
        "p50_ratio": round(milliseconds(during, 0.5) / milliseconds(at_rest, 0.5), 2),
        "p99_ratio": round(milliseconds(during, 0.99) / milliseconds(at_rest, 0.99), 2),
    }


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reloads", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    text = json.dumps(asyncio.run(measure(arguments.reloads)), indent=2)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
