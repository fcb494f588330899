"""Envoy's life as a process: killed, adopted, stopped; and control planes that come and go beside it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from envoy_backends import until

from longshore.schemas.failures import LongshoreError
from longshore.xds.routing import Route, RoutingTable

pytestmark = pytest.mark.envoy

# What must not move when a control plane comes back with the same content.
UPDATES = [
    "cluster_manager.cluster_added",
    "cluster_manager.cluster_modified",
    "cluster_manager.cluster_removed",
    "listener_manager.listener_added",
    "listener_manager.listener_modified",
    "http.ingress.rds.models.config_reload",
]


async def test_killed_envoy_is_started_again(plane):
    """After kill -9 of Envoy the same routes serve again, and the daemon hears of it."""
    _, backend = await plane.runner("1.0.0")
    await plane.start(Route("sentiment", None, (backend,)))
    before = plane.envoy.pid

    os.kill(before, signal.SIGKILL)
    answer = await plane.eventually_answers("/infer/sentiment")

    assert answer.json() == {"version": "1.0.0"}
    assert plane.envoy.pid != before
    await until(lambda: plane.restarts)
    assert plane.restarts == [1]


async def test_move_goes_on_after_envoy_was_killed_in_its_middle(plane):
    """Envoy dies between the two stages of a move: the move completes with its successor."""
    _, first = await plane.runner("1.0.0")
    _, second = await plane.runner("2.0.0")
    await plane.start(Route("sentiment", None, (first,)))

    async def kill() -> None:
        os.kill(plane.envoy.pid, signal.SIGKILL)

    await plane.traffic.set_route(Route("sentiment", None, (second,)), before_flip=kill)

    answer = await plane.eventually_answers("/infer/sentiment")
    assert answer.json() == {"version": "2.0.0"}


async def test_new_control_plane_changes_nothing(plane):
    """Requests go on while the control plane restarts, and equal content is no update for Envoy."""
    _, backend = await plane.runner("1.0.0")
    route = Route("sentiment", None, (backend,))
    await plane.start(route)
    load = plane.load("/infer/sentiment", connections=2)
    await load.beyond(10)
    counts = [await plane.stat(name) for name in UPDATES]

    await plane.traffic.stop()
    await load.beyond(50)
    plane.traffic = plane.new_traffic()
    await plane.traffic.start(RoutingTable((route,)))
    await plane.traffic.settled()
    await load.beyond(50)
    await load.stop()

    assert load.failures == []
    assert [await plane.stat(name) for name in UPDATES] == counts


async def test_second_control_plane_does_not_steal_the_socket(plane):
    """Who finds a living control plane on the path is refused, and the first keeps its Envoy."""
    await plane.start()

    with pytest.raises(LongshoreError, match="SOCKET_IN_USE"):
        await plane.new_traffic().start(RoutingTable())

    _, backend = await plane.runner("1.0.0")
    await plane.traffic.set_route(Route("sentiment", None, (backend,)))


async def test_next_daemon_adopts_envoy(plane):
    """A released Envoy serves on, and the next daemon takes over the same process and watches it."""
    _, backend = await plane.runner("1.0.0")
    await plane.start(Route("sentiment", None, (backend,)))
    pid = plane.envoy.pid
    plane.envoy.release()
    assert (await plane.ask("/infer/sentiment", json={})).status_code == 200

    plane.envoy = plane.new_envoy()
    await plane.envoy.ensure()
    assert plane.envoy.pid == pid

    os.kill(pid, signal.SIGKILL)
    await plane.eventually_answers("/infer/sentiment")
    assert plane.envoy.pid != pid


async def test_envoy_of_another_node_is_replaced(plane):
    """An Envoy that was started for another node is not ours to adopt."""
    await plane.start()
    pid = plane.envoy.pid
    plane.envoy.release()

    plane.envoy = plane.new_envoy("worker-other")
    await plane.envoy.ensure()

    assert plane.envoy.pid not in (None, pid)


async def test_wedged_envoy_is_replaced(plane, monkeypatch):
    """An Envoy that holds its lock and answers nothing is ended, and another one started."""
    monkeypatch.setattr("longshore.worker_host.proxy.envoy.ADOPT_TIMEOUT", 0.2)
    monkeypatch.setattr("longshore.worker_host.proxy.envoy.ADMIN_TIMEOUT", 0.2)
    monkeypatch.setattr("longshore.worker_host.proxy.envoy.EXIT_TIMEOUT", 0.2)
    await plane.start()
    pid = plane.envoy.pid
    plane.envoy.release()
    os.kill(pid, signal.SIGSTOP)

    plane.envoy = plane.new_envoy()
    await plane.envoy.ensure()

    assert plane.envoy.pid not in (None, pid)


async def test_stop_lets_requests_finish(plane):
    """A stop admits nobody new, waits for the request in flight and leaves no process."""
    runner, backend = await plane.runner("1.0.0")
    await plane.start(Route("sentiment", None, (backend,)))
    runner.hold.clear()
    asked = asyncio.create_task(plane.ask("/infer/sentiment", json={}))
    await until(lambda: runner.requests)

    stopping = asyncio.create_task(plane.envoy.stop())
    await until(lambda: plane.stat("listener_manager.listener_stopped"))
    runner.hold.set()

    assert (await asked).status_code == 200
    await stopping
    assert plane.envoy.pid is None
    assert plane.restarts == []


async def test_missing_program_is_named(plane, monkeypatch):
    """Without Envoy on the machine the operator is told which part to install."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)

    with pytest.raises(LongshoreError, match="ENVOY_MISSING"):
        await plane.envoy.ensure()


async def test_envoy_that_cannot_start_shows_its_last_words(plane, monkeypatch):
    """An Envoy that ends at once is reported with the end of its log."""
    monkeypatch.setattr("longshore.worker_host.proxy.bootstrap.RETRY_BASE", "never")

    with pytest.raises(LongshoreError, match="ended") as failed:
        await plane.new_envoy().ensure()

    assert failed.value.code == "ENVOY_WARM_TIMEOUT"
    assert "never" in failed.value.failure.details


async def test_port_in_use_is_refused_by_envoy(plane):
    """A second device on the same port gets Envoy's refusal instead of half of the first one's requests."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", plane.port)
    try:
        with pytest.raises(LongshoreError, match="cannot bind") as refused:
            await plane.start()
    finally:
        server.close()

    assert refused.value.code == "XDS_NACK"
