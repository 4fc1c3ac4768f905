"""The file that outlives the switch: whose it is, what counts in it, what does not."""

import errno
import os
import random
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from vhost import statefile
from vhost.errors import StateFileError
from vhost.messages import MAX_RINGS
from vhost.statefile import RINGS_AT, Negotiated, Place, RingKey, StateFile

RECORD_BYTES = 72
KEY = RingKey(256, Place(1, 2, 4096), Place(1, 2, 8192), Place(1, 2, 8200))


def opened(path: Path, socket: str = "/run/a.sock", record_bytes: int = RECORD_BYTES) -> StateFile:
    return StateFile(str(path), socket, record_bytes)


def begun(file: StateFile, index: int, key: RingKey) -> str | None:
    """Claim a record and have the ring run."""
    reason = file.claim(index, key)
    file.confirm(index)
    return reason


def die(file: StateFile) -> None:
    """What is left of a killed daemon's file: everything."""
    file.map.close()
    os.close(file._fd)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_a_socket_may_lie_deeper_than_a_socket_path_is_long(path: Path) -> None:
    """It is bound by a short path, seen from the daemon's directory."""
    socket = "/" + "/".join(["directory"] * 30) + "/a.sock"
    first = opened(path, socket)
    assert begun(first, 3, KEY) == ""
    die(first)
    again = opened(path, socket)
    assert again.claim(3, KEY) is None
    again.close()


def test_a_ring_goes_on_where_its_record_says(path: Path) -> None:
    first = opened(path)
    assert begun(first, 3, KEY) == ""
    first.record(3)[:] = bytes(range(RECORD_BYTES))
    first.negotiated = Negotiated(7, 5, 1)
    die(first)
    again = opened(path)
    assert again.negotiated == Negotiated(7, 5, 1)
    assert begun(again, 2, KEY) == "", "another ring"
    assert begun(again, 3, KEY) is None
    assert bytes(again.record(3)) == bytes(range(RECORD_BYTES))
    assert begun(again, 3, KEY) is None, "also without a restart"
    again.close()


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (replace(KEY, descriptors=Place(1, 3, 4096)), "memory is another one"),
        (replace(KEY, device=Place(2, 2, 8200)), "memory is another one"),
        (replace(KEY, driver=Place(1, 2, 0)), "it lies elsewhere in memory"),
        (replace(KEY, num=512), "its size is another one"),
    ],
)
def test_another_ring_begins_anew_and_says_why(path: Path, key: RingKey, why: str) -> None:
    file = opened(path)
    begun(file, 0, KEY)
    file.record(0)[:4] = b"full"
    assert begun(file, 0, key) == why
    assert bytes(file.record(0)) == bytes(RECORD_BYTES)
    assert begun(file, 0, key) is None
    file.close()


def test_a_ring_that_was_stopped_is_forgotten(path: Path) -> None:
    file = opened(path)
    begun(file, 0, KEY)
    file.forget(0)
    file.forget(1)
    assert begun(file, 0, KEY) == ""
    file.close()


def test_a_ring_that_never_began_left_nothing(path: Path) -> None:
    file = opened(path)
    file.claim(0, KEY)
    die(file)
    file = opened(path)
    assert file.claim(0, KEY) == ""
    file.close()


def test_every_ring_has_a_record_of_its_own(path: Path) -> None:
    file = opened(path)
    for index in range(MAX_RINGS):
        begun(file, index, KEY)
        file.record(index)[:] = index.to_bytes(2, "little") * (RECORD_BYTES // 2)
    for index in range(MAX_RINGS):
        assert begun(file, index, KEY) is None
        assert bytes(file.record(index)) == index.to_bytes(2, "little") * (RECORD_BYTES // 2)
    file.close()


def test_the_file_is_private_sparse_and_goes_when_it_tells_nothing(path: Path) -> None:
    before = os.umask(0)
    try:
        file = opened(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    begun(file, 200, KEY)
    assert path.stat().st_blocks * 512 <= 4 * 4096
    file.close()
    assert not path.exists()
    file = opened(path)
    file.negotiated = Negotiated(1, 1, 0)
    file.close()
    assert path.exists()


def test_two_processes_do_not_share_it(path: Path) -> None:
    file = opened(path)
    with pytest.raises(StateFileError, match="another process uses it"):
        opened(path)
    file.close()
    opened(path).close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 100_000),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(b"another!" + path.read_bytes()[8:]),
        lambda path: path.chmod(0o640),
        lambda path: os.link(path, path.with_name("second")),
        lambda path: (path.rename(path.with_name("x")), path.symlink_to(path.with_name("x"))),
        lambda path: (path.unlink(), os.mkfifo(path, 0o600)),
    ],
    ids=["empty", "noise", "short", "foreign", "readable", "linked", "symlink", "fifo"],
)
def test_what_is_stale_or_foreign_is_replaced(path: Path, spoil: object) -> None:
    file = opened(path)
    begun(file, 0, KEY)
    file.negotiated = Negotiated(1, 1, 1)
    die(file)
    assert callable(spoil)
    spoil(path)
    again = opened(path)
    assert again.negotiated == Negotiated()
    assert begun(again, 0, KEY) == ""
    assert path.is_file()
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again.close()


def test_another_socket_or_another_version_counts_for_nothing(path: Path) -> None:
    for socket, record_bytes in (("/run/b.sock", RECORD_BYTES), ("/run/b.sock", RECORD_BYTES + 1)):
        file = opened(path)
        begun(file, 0, KEY)
        file.negotiated = Negotiated(1, 1, 1)
        die(file)
        other = opened(path, socket, record_bytes)
        assert (other.negotiated, begun(other, 0, KEY)) == (Negotiated(), "")
        other.close()


def test_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(StateFileError, match="No such file"):
        opened(tmp_path / "no" / "state")
    (tmp_path / "state").mkdir()
    with pytest.raises(StateFileError, match="Is a directory"):
        opened(tmp_path / "state")


def test_no_room_is_an_error_and_not_a_fault(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = opened(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(StateFileError, match="no room"):
            file.claim(0, KEY)
    assert begun(file, 0, KEY) == ""
    file.close()


def test_torn_contents_never_hurt(path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed={seed}")
    rng = random.Random(seed)
    file = opened(path)
    begun(file, 0, KEY)
    die(file)
    for _ in range(200):
        whole = bytearray(path.read_bytes())
        for _ in range(rng.randrange(1, 8)):
            whole[rng.choice([rng.randrange(200), RINGS_AT + rng.randrange(400)])] = rng.randrange(
                256
            )
        path.write_bytes(whole)
        file = opened(path)
        assert begun(file, 0, KEY) in (
            None,
            "",
            "memory is another one",
            "it lies elsewhere in memory",
            "its size is another one",
        )
        assert begun(file, 0, KEY) is None
        die(file)


def test_a_file_that_changes_all_the_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(statefile, "_is_at", lambda *_: False)
    with pytest.raises(StateFileError, match="changes it all the time"):
        opened(path)
    assert len(os.listdir("/proc/self/fd")) == before
