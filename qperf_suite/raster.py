"""Charts as PNG, for where SVG is not shown: drawn by resvg, which is one wheel without libraries.

Fonts are the machine's; where it has none a picture would be without words, so that none is made.
"""

from functools import cache

import resvg_py

from qperf_suite.charts import Chart, Series, svg

ZOOM = 2.0


def png(document: str) -> bytes:
    """A picture of an SVG document, twice as large as that says."""
    return resvg_py.svg_to_bytes(svg_string=document, zoom=ZOOM)


@cache
def missing() -> str:
    """What this machine lacks for pictures with words, "" when nothing."""
    chart = svg(Chart("words", "", "", [Series("", [])], {1.0: ""}))
    if png(chart) != png(chart.replace("words", "")):
        return ""
    return "plots are not written as PNG: there is no font; apt-get install fonts-dejavu-core"
