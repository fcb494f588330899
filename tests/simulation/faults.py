"""What goes wrong, done to the world."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from longshore.schemas.devices import DeviceStatus
from longshore.schemas.failures import LongshoreError
from longshore.schemas.orders import Order
from tests.simulation.devices import Device
from tests.simulation.schedule import Fault

if TYPE_CHECKING:
    from tests.simulation.world import World

# Seconds after which the keeper starts a fleet that is gone (broker/keeper), and after which a broker is back.
_KEPT = 60.0


class Faults:
    def __init__(self, world: World) -> None:
        self._world = world
        self._clock = world.clock
        self._happens: dict[str, Callable[[Fault], None]] = {
            "end rollout": self._end_rollout,
            "end fleet": self._end_fleet,
            "lose the database": self._lose_database,
            "lose letters": self._lose_letters,
            "pause": self._hold,
            "abort": self._hold,
            "reconcile": lambda _: self._order("reconcile", ""),
            "cut pool": self._cut_pool,
            "broker away": self._broker_away,
            "die": lambda fault: self._device(fault).die(fault.model),
            "blink": lambda fault: self._device(fault).blink(fault.model),
            "restart": self._say_goodbye,
            "leave": self._say_goodbye,
            "drain": self._cordon,
            "cordon": self._cordon,
            "drain itself": self._drain_itself,
        }

    def happen(self, fault: Fault) -> None:
        self._clock.tell("fault", str(fault))
        if fault.kind in self._happens:
            self._happens[fault.kind](fault)
        else:
            self._down(self._device(fault), fault.kind, fault.seconds)

    def _device(self, fault: Fault) -> Device:
        return self._world.devices[fault.target]

    # Devices

    def _down(self, device: Device, kind: str, seconds: float) -> None:
        """Silence a device by a crash, a cut, a freeze or a wipe, and bring it back."""
        if not device.reachable:
            return
        self._world.forgiven |= kind == "wipe"
        happens, back = {
            "crash": (device.crash, device.boot),
            "cut": (device.cut, device.heal),
            "freeze": (device.freeze, device.thaw),
            "wipe": (device.wipe, device.boot),
        }[kind]
        happens()
        self._world.presences[device.worker_id].silent()
        self._clock.after(seconds, self._up, device, back)

    def _up(self, device: Device, back: Callable[[], None]) -> None:
        device.status = DeviceStatus.HEALTHY
        self._clock.tell(device.worker_id, "is there again")
        back()

    def _say_goodbye(self, fault: Fault) -> None:
        device = self._device(fault)
        if device.reachable:
            device.status = DeviceStatus.RESTARTING if fault.kind == "restart" else DeviceStatus.LEAVING
            self._world.changed(device.worker_id)
            self._clock.after(1, self._down, device, "crash", fault.seconds)

    def _cut_pool(self, fault: Fault) -> None:
        devices = [*self._world.devices.values()]
        for one in devices[: max(2, len(devices) * 2 // 3)]:
            self._down(one, "cut", fault.seconds)

    def _drain_itself(self, fault: Fault) -> None:
        device = self._device(fault)

        def tell(*, draining: bool) -> None:
            device.draining = draining
            self._world.changed(device.worker_id)

        tell(draining=True)
        self._clock.after(fault.seconds, lambda: tell(draining=False))

    # Operators

    def _cordon(self, fault: Fault) -> None:
        self._order(fault.kind, fault.target)
        self._clock.after(fault.seconds, self._order, "uncordon", fault.target)

    def _hold(self, fault: Fault) -> None:
        self._order(fault.kind, fault.target)
        self._clock.after(fault.seconds, self._order, "resume", fault.target)

    def _order(self, kind: str, target: str) -> None:
        fleet = self._world.fleet
        if fleet is None:
            self._clock.after(10, self._order, kind, target)
            return
        try:
            answer = fleet.order(Order.model_validate({"kind": kind, "target": target, "by": "olga"}))
        except LongshoreError as error:
            self._clock.tell("olga", f"{kind} {target}: {error}")
        else:
            self._clock.tell("olga", f"{kind} {target}: {answer.words}")

    # Workflows

    def _end_rollout(self, fault: Fault) -> None:
        actor = self._world.actors.get(fault.target)
        if actor is not None and not actor.ended:
            actor.terminate()

    def _end_fleet(self, fault: Fault) -> None:
        if self._world.fleet is not None:
            self._world.fleet.end()
            self._world.fleet, self._world.forgiven = None, True
            self._clock.after(min(fault.seconds, _KEPT), self._world.start_fleet)

    def _lose_database(self, fault: Fault) -> None:
        """Lose every workflow: what was asked is forgotten with whoever asked it; git and the devices know (row 57)."""
        self._end_fleet(fault)
        for actor in self._world.actors.values():
            actor.terminate()
        for presence in self._world.presences.values():
            presence.begin_anew()
        self._world.askers.clear()

    def _lose_letters(self, fault: Fault) -> None:
        self._world.losing_until = self._clock.seconds + fault.seconds

    def _broker_away(self, fault: Fault) -> None:
        if self._world.fleet is not None:
            self._world.fleet.away_until = self._clock.seconds + min(fault.seconds, _KEPT)
