"""Hugepages for front-ends that bring them; the switch itself needs none."""

from pathlib import Path

COUNT = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


def reserve_hugepages(wanted: int) -> None:
    """At least so many pages of 2 MiB in all, as root."""
    if int(COUNT.read_text()) < wanted:
        COUNT.write_text(str(wanted))
    got = int(COUNT.read_text())
    assert got >= wanted, f"only {got} hugepages of {wanted} to be had"


def page_sizes_kib(pid: int) -> set[int]:
    """Sizes of the pages that a process has mapped."""
    lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    return {int(line.split()[1]) for line in lines if line.startswith("KernelPageSize:")}
