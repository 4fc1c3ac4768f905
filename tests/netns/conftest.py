"""What the tests of a mesh between two hosts share: nobody builds one that is not looked at."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.meshlab import Lab, laboratory


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """The parameter is the family of the underlay, 4 without."""
    with laboratory(tmp_path, getattr(request, "param", "4")) as made:
        yield made
