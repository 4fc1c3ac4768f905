"""Workers as threads: each pinned to a CPU, each inside C until it is stopped."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from vswitch import core
from vswitch.errors import CoreError

log = logging.getLogger("vsw.workers")


class WorkerThread:
    """A worker and its thread.  All methods are the control thread's."""

    def __init__(self, index: int, cpu: int, died: Callable[[str], None]) -> None:
        """died: called in the worker's thread with the reason when it ends without stop()."""
        self.index = index
        self.cpu = cpu
        self.numa_node = numa_node(cpu)
        self.worker = core.Worker(index)
        self._died = died
        self._stopping = False
        self._ready = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._main, name=f"vsw-worker-{index}")

    def start(self) -> None:
        """Run; returns when the thread sits on its CPU.  Raises CoreError when it cannot."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise CoreError(self._error.errno or 0, f"pin worker {self.index} to CPU {self.cpu}")

    def _main(self) -> None:
        tid = threading.get_native_id()
        try:
            os.sched_setaffinity(tid, {self.cpu})
            Path(f"/proc/self/task/{tid}/comm").write_text(self._thread.name)
        except OSError as e:
            self._error = e
            return
        finally:
            self._ready.set()
        try:
            self.worker.run()
        except CoreError as e:
            self._died(str(e))
            return
        if not self._stopping:
            self._died("worker_run() returned")

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def pin(self, cpu: int) -> None:
        """Move to another CPU."""
        if cpu == self.cpu:
            return
        try:
            os.sched_setaffinity(self._thread.native_id or 0, {cpu})
        except OSError as e:
            raise CoreError(e.errno or 0, f"pin worker {self.index} to CPU {cpu}") from None
        self.cpu = cpu
        self.numa_node = numa_node(cpu)

    def stop(self) -> None:
        """Stop and join; the C object stays until close()."""
        self._stopping = True
        if self.running:
            self.worker.stop()
            self._thread.join()

    def close(self) -> None:
        self.stop()
        self.worker.close()

    def status(self) -> dict[str, object]:
        return {
            "index": self.index,
            "cpu": self.cpu,
            "numa_node": self.numa_node,
            **self.worker.counters(),
        }


def numa_node(cpu: int) -> int | None:
    """The NUMA node of a CPU, when the kernel tells."""
    for path in Path(f"/sys/devices/system/cpu/cpu{cpu}").glob("node[0-9]*"):
        return int(path.name.removeprefix("node"))
    return None
