"""What the memory of another process holds: keys, above all."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

WORD_BYTES = 16  # a round key, half a record key, a relay header's key
CHUNK_BYTES = 16 << 20


def regions(pid: int) -> Iterator[tuple[int, int, set[str]]]:
    """(begin, end, flags) of what may be read."""
    begin = end = 0
    readable = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) .*?(\[v\w+\])?$", line):
            begin, end = int(found[1], 16), int(found[2], 16)
            readable = found[3].startswith("r") and not found[4]
        elif line.startswith("VmFlags:") and readable:
            yield begin, end, set(line.split()[1:])


def contents(pid: int, *, locked: bool) -> Iterator[bytes]:
    """Region by region, in pieces that overlap by a word.  locked: only what is locked and not
    dumped, where keys belong."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for begin, end, flags in regions(pid):
            if locked and not {"lo", "dd"} <= flags:
                continue
            for at in range(begin, end, CHUNK_BYTES):
                mem.seek(at)
                try:
                    yield mem.read(min(end - at, CHUNK_BYTES + WORD_BYTES))
                except OSError:
                    break  # device memory, or gone meanwhile


def secrets(pid: int) -> set[bytes]:
    """Whatever looks random in the locked memory: keys, and what ciphers made of them, are at its
    16-byte boundaries."""
    found = set()
    for content in contents(pid, locked=True):
        for at in range(0, len(content) - WORD_BYTES + 1, WORD_BYTES):
            word = content[at : at + WORD_BYTES]
            if len(set(word)) > WORD_BYTES // 2:
                found.add(word)
    return found


def holds(pid: int, words: Collection[bytes]) -> set[bytes]:
    """Those of the words that are anywhere in its memory."""
    found = set()
    for content in contents(pid, locked=False):
        found |= {word for word in words if word not in found and word in content}
    return found
