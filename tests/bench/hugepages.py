"""Hugepages for the time of a benchmark."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.errors import BenchError
from tests.fakes.hugepages import COUNT


@contextmanager
def hugepages(count: int) -> Iterator[None]:
    """So many more than there were; others may reserve and give back theirs meanwhile."""
    before = int(COUNT.read_text())
    COUNT.write_text(str(before + count))
    got = int(COUNT.read_text()) - before
    try:
        if got < count:
            raise BenchError(f"only {got} hugepages of {count} to be had: free some memory")
        yield
    finally:
        COUNT.write_text(str(max(0, int(COUNT.read_text()) - got)))
