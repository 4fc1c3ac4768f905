"""The report in a browser, as wide as a phone and as a screen."""

import json
import re
import shutil
import struct
import subprocess
from html import escape
from pathlib import Path

import pytest

from qperf_suite.plans import PLANS
from qperf_suite.report import write
from tests.fakes.suite_run import invented

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="chromium is not installed"
)
# What the page is like, seen from inside; it has no script of its own.
PROBE = """
<script>
const errors = [];
const failed = event => errors.push(String(event.message || event.target.src));
window.addEventListener("error", failed, true);
window.addEventListener("load", () => {
  const root = document.documentElement;
  const drawn = [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect());
  const text = [...document.querySelectorAll("p, td, svg text")].map(
    element => parseFloat(getComputedStyle(element).fontSize) *
      (element.ownerSVGElement ? element.getScreenCTM().a : 1));
  const report = {
    errors: errors,
    width: root.clientWidth,
    overflow: root.scrollWidth - root.clientWidth,
    images: [...document.images].every(image => image.complete && image.naturalWidth > 0),
    plots: drawn.length,
    drawn: drawn.every(box => box.width > 300 && box.height > 200 && box.right <= innerWidth),
    smallest: Math.min(...text),
  };
  parent.document.getElementById("found").textContent = JSON.stringify(report);
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    invented(folder, PLANS["published"]())
    return write(folder)[0]


def browse(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    profile = f"--user-data-dir={folder / 'profile'}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", profile]
    return subprocess.run(
        ["chromium", *options, *arguments], capture_output=True, text=True, timeout=120, check=True
    )


@pytest.mark.parametrize("width", [400, 1400])
def test_page_reads_well(page: Path, tmp_path: Path, width: int) -> None:
    """In a frame, because a window has a least width."""
    inside = page.read_text().replace("<head>", f"<head>{PROBE}", 1)
    frame = f'<iframe width="{width}" height="4000" style="border:0" srcdoc="{escape(inside)}">'
    outside = tmp_path / "frame.html"
    outside.write_text(
        f'<!doctype html><body style="margin:0"><pre id="found"></pre>{frame}</iframe></body>'
    )
    done = browse(tmp_path, "--virtual-time-budget=20000", "--dump-dom", outside.as_uri())
    assert "CONSOLE" not in done.stderr
    found = re.search(r'<pre id="found">(\{.*?\})</pre>', done.stdout)
    assert found
    report = json.loads(found[1])
    assert report["errors"] == []
    assert report["width"] == pytest.approx(width, abs=20)
    assert report["overflow"] <= 0
    assert report["images"]
    assert report["plots"] == 26
    assert report["drawn"]
    assert report["smallest"] >= 8


def test_page_is_drawn(page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    done = browse(tmp_path, "--window-size=1400,3000", f"--screenshot={picture}", page.as_uri())
    assert "CONSOLE" not in done.stderr
    content = picture.read_bytes()
    assert struct.unpack(">II", content[16:24]) == (1400, 3000)
    assert len(content) > 100_000
