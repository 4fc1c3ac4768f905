"""The daemon: signals, control socket and reload around one Switch.

The only file of this package with an event loop.  Threads: the control thread runs the loop;
workers are threads inside C (workers.py).
"""

import asyncio
import contextlib
import logging
import resource
import signal
import time

from mesh.errors import MeshError
from vhost.errors import VhostError
from vswitch import notify
from vswitch.asking import Asking
from vswitch.config import load
from vswitch.control import ControlServer, permit
from vswitch.errors import Place, UserError, VswError
from vswitch.host import make_run_directory
from vswitch.model import Config
from vswitch.ports import PlugMaker
from vswitch.report import Report
from vswitch.switch import Switch
from vswitch.workers import WorkerThread

log = logging.getLogger("vsw")

BALANCE_S = 1.0
PUNTS_AT_ONCE = 64  # then other events of the loop have their turn


class Daemon:
    """One run of the switch."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[str] = self._loop.create_future()
        self._switch = Switch(PlugMaker(self._loop), self._worker_died)
        self._report = Report(self._switch)
        self._asking = Asking(self._switch)
        self._control: ControlServer | None = None
        self._balance: asyncio.TimerHandle | None = None
        self._serving: asyncio.Task[None] | None = None  # kept, or it would be collected

    async def run(self) -> str:
        """Until a signal ends it.  Returns why it failed, "" after a clean stop.

        Raises UserError when it cannot start; then nothing is left behind.
        """
        try:
            self._control = self._bind(self._config)
            self._switch.apply(self._config)
            self._hear_workers()
            await self._control.serve()
            self._schedule_balance()
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._stop, number)
            self._loop.add_signal_handler(signal.SIGHUP, self._reload)
            log.info("running with %s", self._config.file)
            notify.ready(f"running with {self._config.file}")
            return await self._end
        finally:
            notify.stopping()
            self._close()

    def _close(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._balance is not None:
            self._balance.cancel()
        self._ignore_workers()
        self._switch.close()

    def _hear_workers(self) -> None:
        for thread in self._switch.workers:
            self._loop.add_reader(thread.worker.punt_fd(), self._punted, thread)

    def _ignore_workers(self) -> None:
        for thread in self._switch.workers:
            self._loop.remove_reader(thread.worker.punt_fd())

    def _schedule_balance(self) -> None:
        self._balance = self._loop.call_later(BALANCE_S, self._balance_load)

    def _balance_load(self) -> None:
        self._switch.balance(time.monotonic_ns())
        self._schedule_balance()

    def _bind(self, config: Config) -> ControlServer:
        return ControlServer(
            config.control,
            Place(config.file, "control"),
            {
                "status": self._report.status,
                "ports": self._report.ports,
                "fdb": self._report.fdb,
                "stats": self._report.stats,
                "top": self._report.top,
                "mesh peers": self._report.mesh_peers,
                "mesh routes": self._report.mesh_routes,
            },
            {"mesh ping": self._asking.ping, "mesh trace": self._asking.trace},
        )

    def _stop(self, number: signal.Signals) -> None:
        log.info("stopping on %s", signal.Signals(number).name)
        if not self._end.done():
            self._end.set_result("")

    def _worker_died(self, reason: str) -> None:
        """Called in the worker's thread."""
        self._loop.call_soon_threadsafe(self._fail, f"a worker ended by itself: {reason}")

    def _fail(self, reason: str) -> None:
        if not self._end.done():
            self._end.set_result(reason)

    def _punted(self, thread: WorkerThread) -> None:
        # The fd stays readable until the last punt is taken.
        for punt in thread.worker.punts(PUNTS_AT_ONCE):
            mesh = self._switch.state.mesh
            if mesh is not None:
                mesh.plug.handle_punt(punt)

    def _reload(self) -> None:
        """Apply the file again.  A wrong file changes nothing."""
        notify.reloading()
        try:
            self._apply(load(self._config.file))
        except (VswError, VhostError, MeshError) as e:
            log.error("not reloaded, everything goes on as before: %s", e)
            notify.ready(f"not reloaded: {e}")
            return
        log.info("reloaded %s", self._config.file)
        notify.ready(f"running with {self._config.file}")

    def _apply(self, config: Config) -> None:
        make_run_directory(config)
        moved = config.control.path != self._config.control.path
        new = self._bind(config) if moved else None
        try:
            if not moved:
                self._permit(config)
            self._ignore_workers()  # some may end, and their files with them
            try:
                self._switch.apply(config)
            finally:
                self._hear_workers()
        except BaseException:
            if new is not None:
                new.close()
            else:
                self._permit(self._config)
            raise
        self._config = config
        if new is not None and self._control is not None:
            self._control.close()
            self._control = new
            self._serving = self._loop.create_task(new.serve())

    def _permit(self, config: Config) -> None:
        try:
            permit(config.control)
        except OSError as e:
            raise UserError(
                f"cannot change the mode or group of {config.control.path}: {e.strerror}",
                "choose others, or restart the daemon",
                Place(config.file, "control_mode"),
            ) from None


def raise_limits() -> None:
    """As many files and as much locked memory as we may have: guests bring both."""
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK):
        _, hard = resource.getrlimit(limit)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (hard, hard))


def run(file: str) -> str:
    """Run a configuration until a signal; returns why it failed, or "".  Raises UserError."""
    config = load(file)
    make_run_directory(config)
    raise_limits()

    async def main() -> str:
        return await Daemon(config).run()

    try:
        return asyncio.run(main())
    except UserError:
        raise
    except VswError as e:
        return str(e)
