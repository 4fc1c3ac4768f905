"""The switch: workers, bridges and ports, changed from one configuration to the next.

A change is a difference.  Ports that it does not touch are the same objects before and after.  If a
step fails, all steps before it are undone and the error is raised.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from mesh.config import MeshConfig
from mesh.errors import ConfigError, MeshError
from vhost.errors import VhostError
from vswitch import core
from vswitch.balance import Balancer
from vswitch.errors import CoreError, Place, UserError, VswError
from vswitch.host import allowed_cpus
from vswitch.loads import Meter
from vswitch.model import Bridge, Config, Control, Port, TapPort, VhostUserPort, Workers, port_key
from vswitch.ports import Maker
from vswitch.state import (
    MESH,
    Attached,
    AttachedMesh,
    PortName,
    Published,
    State,
    build,
    number,
    wishes,
)
from vswitch.workers import WorkerThread

log = logging.getLogger("vsw.switch")

SYNC_TIMEOUT_NS = 5_000_000_000
NEIGHBOUR_ENTRIES = 4096
NOTHING = Config("", Control(), Workers(), bridges=(), mesh=None, public_key=None)


class Switch:
    """All methods are the control thread's."""

    def __init__(self, maker: Maker, worker_died: Callable[[str], None]) -> None:
        """worker_died: see WorkerThread."""
        self._maker = maker
        self._worker_died = worker_died
        self._workers: list[WorkerThread] = []
        self._neighbours = core.Neighbours(NEIGHBOUR_ENTRIES)
        self._published: Published | None = None
        self._balancer = Balancer([])
        self._meter = Meter()
        self._assigned: dict[object, int] = {}
        self.state = State(NOTHING)

    @property
    def workers(self) -> list[WorkerThread]:
        return self._workers

    def worker_of(self, rxq: object) -> int:
        """The worker that polls a queue which is listed."""
        return self._assigned[rxq]

    # ---- what plugs call

    def republish(self) -> None:
        """Publish what all plugs list now; return when every worker is past what was before."""
        self._balancer.nodes = [thread.numa_node for thread in self._workers]
        before = self._assigned
        cpus = [thread.cpu for thread in self._workers]
        self._assigned = self._balancer.place(wishes(self.state, cpus))
        staying = {
            rxq: worker
            for rxq, worker in self._assigned.items()
            if before.get(rxq, worker) == worker
        }
        # Two workers must not have a queue while the news spreads: first the old one lets go of it.
        if len(staying) < len(self._assigned):
            self._publish(staying)
        self._publish(self._assigned)

    def _publish(self, assigned: dict[object, int]) -> None:
        new = build(self.state, len(self._workers), self._neighbours, assigned)
        old, self._published = self._published, new
        for thread in self._workers:
            thread.worker.publish(new.snapshot)
        self.sync()
        if old is not None:
            old.close()

    def sync(self) -> None:
        """Return when every worker is past everything published or unlinked before."""
        for thread in self._workers:
            thread.worker.sync(SYNC_TIMEOUT_NS)

    # ---- loads

    def queues(self) -> list[tuple[PortName, int, object]]:
        """Every started receive queue of the ports: (port, number there, queue)."""
        return [
            (name, index, rxq)
            for name, attached in self.state.ports.items()
            for index, rxq in enumerate(attached.plug.c_rxqs)
        ]

    def balance(self, now: int) -> None:
        """Measure; move a queue when a worker has clearly more to do than another.

        Called about once a second.  now: monotonic ns."""
        if len(self._workers) < 2:
            return
        queues = {rxq: (self._assigned[rxq], core.rxq_counters(rxq)) for _, _, rxq in self.queues()}
        counters = [thread.worker.counters() for thread in self._workers]
        loads, other = self._meter.loads(counters, queues)
        moves = self._balancer.measure(loads, other, now)
        if not moves:
            return
        for (_, port), index, rxq in self.queues():
            if rxq in moves:
                log.info("port %s: queue %d moves to worker %d", port, index, moves[rxq])
        self.republish()

    # ---- configurations

    def apply(self, config: Config) -> None:
        """Become what config says.  Raises UserError or CoreError, and then nothing has changed."""
        old = self.state
        with ExitStack() as undo:
            closed: list[Attached] = []
            undo.callback(self._recover, old, closed)
            self._apply_workers(old, config, undo)
            ids = number(old.ids, config)
            fdbs = self._make_fdbs(old, config, undo)
            kept = keep(old, config)
            leaving = {name: port for name, port in old.ports.items() if name not in kept}
            busy = {resource(port.config) for port in leaving.values()}
            ports = dict(kept)
            # What can be started beside the old ones is, so that most failures cost nothing.
            for bridge, port in config.ports():
                name = bridge.name, port.name
                if name not in ports and resource(port) not in busy:
                    ports[name] = self._start(config, bridge, port, ids[name], undo)
            mesh = self._apply_mesh(old, config, undo)
            if leaving:
                self._detach(old, leaving, closed)
            for bridge, port in config.ports():
                name = bridge.name, port.name
                if name not in ports:
                    ports[name] = self._start(config, bridge, port, ids[name], undo)
            if mesh is None and config.mesh is not None:
                mesh = self._start_mesh(config, config.mesh, ids[MESH], undo)
            in_order = {
                (bridge.name, port.name): ports[bridge.name, port.name]
                for bridge, port in config.ports()
            }
            between = self.state
            undo.callback(self._show, between)
            self._show(State(config, ids, fdbs, in_order, mesh))
            undo.pop_all()
        for fdb in old.fdbs.values():
            if fdb not in fdbs.values():
                fdb.close()
        for bridge in config.bridges:
            fdbs[bridge.name].set_ageing(bridge.ageing_s)
        self._dismiss_workers(len(worker_cpus(config)))

    def close(self) -> None:
        """Stop and join the workers, then close everything."""
        for thread in self._workers:
            thread.stop()
        old, self.state = self.state, State(NOTHING)
        self.republish()
        for attached in old.ports.values():
            attached.plug.close()
        if old.mesh is not None:
            old.mesh.plug.close()
        for thread in self._workers:
            thread.worker.publish(None)
            thread.close()
        self._workers = []
        if self._published is not None:
            self._published.close()
            self._published = None
        for fdb in old.fdbs.values():
            fdb.close()
        self._neighbours.close()

    # ---- steps of apply()

    def _show(self, state: State) -> None:
        self.state = state
        self.republish()

    def _apply_workers(self, old: State, config: Config, undo: ExitStack) -> None:
        """Pin those that go on, start those that come; who leaves does so when all else is done."""
        cpus = worker_cpus(config)
        place = Place(config.file, "workers.cpus")
        if self._workers and len(cpus) != len(self._workers) and (old.config.mesh or config.mesh):
            raise UserError(
                f"{len(cpus)} workers instead of {len(self._workers)}: with a mesh, whose lanes "
                "belong to workers, their number cannot change while they run",
                "restart the daemon, or keep the number of CPUs",
                place,
            )
        undo.callback(self._dismiss_workers, len(self._workers))
        with explained(place, "choose other CPUs"):
            for thread, cpu in zip(self._workers, cpus, strict=False):
                undo.callback(thread.pin, thread.cpu)
                thread.pin(cpu)
            for index in range(len(self._workers), len(cpus)):
                thread = WorkerThread(index, cpus[index], self._worker_died)
                try:
                    thread.start()
                except CoreError:
                    thread.close()
                    raise
                self._workers.append(thread)

    def _dismiss_workers(self, count: int) -> None:
        """Go on with the first count workers.  Who is stopped has let go of its queues."""
        leaving = self._workers[count:]
        if not leaving:
            return
        for thread in leaving:
            thread.stop()
        self._workers = self._workers[:count]
        self.republish()
        for thread in leaving:
            thread.close()
            log.info("worker %d ended", thread.index)

    def _make_fdbs(self, old: State, config: Config, undo: ExitStack) -> dict[str, core.Fdb]:
        sizes = {bridge.name: bridge.mac_table_size for bridge in old.config.bridges}
        fdbs: dict[str, core.Fdb] = {}
        for bridge in config.bridges:
            if sizes.get(bridge.name) == bridge.mac_table_size:
                fdbs[bridge.name] = old.fdbs[bridge.name]
                continue
            fdb = core.Fdb(bridge.mac_table_size, int.from_bytes(os.urandom(8), "little"))
            undo.callback(fdb.close)
            fdbs[bridge.name] = fdb
        return fdbs

    def _start(
        self, config: Config, bridge: Bridge, port: Port, port_id: int, undo: ExitStack
    ) -> Attached:
        with explained(Place(config.file, plug_key(bridge, port))):
            plug = self._maker.port(port_id, config, bridge, port, self)
            undo.callback(plug.close)
            plug.start()
        log.info("%s: port %s started", bridge.name, port.name)
        return Attached(port_id, bridge, port, plug)

    def _detach(
        self, old: State, leaving: dict[PortName, Attached], closed: list[Attached]
    ) -> None:
        """Take ports out of service, then close them."""
        ports = {name: port for name, port in old.ports.items() if name not in leaving}
        self._show(replace(self.state, ports=ports))
        for (bridge, name), attached in leaving.items():
            old.fdbs[bridge].flush_port(attached.port_id)
            closed.append(attached)
            attached.plug.close()
            log.info("%s: port %s closed", bridge, name)

    def _recover(self, old: State, closed: list[Attached]) -> None:
        """The last step of an undo: the old state, with closed ports made and started again."""
        ports = dict(old.ports)
        for attached in closed:
            bridge, port = attached.bridge, attached.config
            try:
                plug = self._maker.port(attached.port_id, old.config, bridge, port, self)
                with explained(Place(old.config.file, plug_key(bridge, port))):
                    plug.start()
            except VswError as e:
                log.error("could not go back: %s", e)
                del ports[bridge.name, port.name]
                continue
            ports[bridge.name, port.name] = replace(attached, plug=plug)
        self._show(replace(old, ports=ports, mesh=self.state.mesh))

    # ---- the mesh

    def _apply_mesh(self, old: State, config: Config, undo: ExitStack) -> AttachedMesh | None:
        """The mesh that goes on, changed; None when there is none, or not yet."""
        if old.mesh is None or old.config.mesh is None:
            return None
        before, after = old.config.mesh, config.mesh
        if after is not None and mesh_goes_on(old.config, config):
            with explained(Place(config.file, "mesh")):
                undo.callback(old.mesh.plug.apply, before)
                old.mesh.plug.apply(after)
            return old.mesh
        # Its socket, identity and record size are fixed: with another, it is another mesh.
        self._show(replace(self.state, mesh=None))
        old.mesh.plug.close()
        undo.callback(self._mesh_again, old.config, before, old.ids[MESH])
        return None

    def _start_mesh(
        self, config: Config, mesh: MeshConfig, port_id: int, undo: ExitStack
    ) -> AttachedMesh:
        with explained(Place(config.file, "mesh.listen")):
            plug = self._maker.mesh(port_id, mesh, self, len(self._workers))
            undo.callback(plug.close)
            plug.start()
        log.info("mesh started on %s", mesh.listen)
        return AttachedMesh(port_id, plug)

    def _mesh_again(self, config: Config, mesh: MeshConfig, port_id: int) -> None:
        try:
            with ExitStack() as failed:
                attached = self._start_mesh(config, mesh, port_id, failed)
                failed.pop_all()
        except VswError as e:
            log.error("could not go back: %s", e)
            return
        self.state = replace(self.state, mesh=attached)


def keep(old: State, config: Config) -> dict[PortName, Attached]:
    """Ports that go on, with what changes without their notice: owned addresses live in routes,
    CPUs in the assignment of queues."""
    kept: dict[PortName, Attached] = {}
    for bridge, port in config.ports():
        attached = old.ports.get((bridge.name, port.name))
        if (
            attached is not None
            and as_plugged(attached.config) == as_plugged(port)
            and attached.bridge.mtu_bytes == bridge.mtu_bytes
        ):
            kept[bridge.name, port.name] = replace(attached, bridge=bridge, config=port)
    return kept


def as_plugged(port: Port) -> Port:
    """A port's configuration without what its plug knows nothing of."""
    return replace(port, addresses=(), cpus=())


def worker_cpus(config: Config) -> tuple[int, ...]:
    return config.workers.cpus or tuple(allowed_cpus()[:1])


def mesh_goes_on(old: Config, new: Config) -> bool:
    """The peers of a mesh may change while it runs."""
    return (
        old.mesh is not None
        and new.mesh is not None
        and replace(old.mesh, peers=()) == replace(new.mesh, peers=())
        and old.public_key == new.public_key
    )


def resource(port: Port) -> str:
    """What two ports cannot have at the same time."""
    match port:
        case VhostUserPort():
            return f"socket {port.path}"
        case TapPort():
            return f"interface {port.interface}"


def plug_key(bridge: Bridge, port: Port) -> str:
    """The key that says where a port is plugged in."""
    match port:
        case VhostUserPort():
            return f"{port_key(bridge, port)}.path"
        case TapPort():
            return f"{port_key(bridge, port)}.interface"


@contextmanager
def explained(
    place: Place, remedy: str = "leave something out, or give it more memory"
) -> Iterator[None]:
    """What fails inside is the user's mistake at place."""
    try:
        yield
    except ConfigError as e:
        raise UserError(e.what, e.remedy, place) from e
    except (VhostError, MeshError) as e:
        raise UserError(str(e), "", place) from e
    except CoreError as e:
        raise UserError(str(e), remedy, place) from e
