"""Line charts as SVG: logarithmic axes, intervals, a series per system. Pure functions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 320
# By name, too: a renderer outside of a browser does not know which one is the system's.
FONTS = "system-ui, DejaVu Sans, Liberation Sans, Noto Sans, Arial, sans-serif"
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 44, 40
# Told apart without colours, too, by their marks.
COLOURS = ("#0b62a4", "#c45508", "#4d7c0f", "#7a3e9d")
MARKS = ("circle", "square", "triangle", "diamond")
MARK_WIDTH = 4
# Within a decade, from few to many.
_STEPS: tuple[tuple[float, ...], ...] = (
    (1,),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
)
FAINT, INK = "#d9d9d9", "#333"


@dataclass(frozen=True)
class Dot:
    """One value with its interval, drawn wide, and thin what was seen; x, y, low: positive."""

    x: float
    y: float
    low: float
    high: float
    seen: tuple[float, ...] = ()


@dataclass(frozen=True)
class Series:
    """What is drawn in one colour."""

    name: str
    dots: Sequence[Dot]


@dataclass(frozen=True)
class Chart:
    """A chart. ticks: x → label; line: y of a line across; steps: x is linear."""

    title: str
    y_title: str
    x_title: str
    series: Sequence[Series]
    ticks: dict[float, str]
    line: float | None = None
    steps: bool = False


def svg(chart: Chart) -> str:
    """The chart as a document of its own, which also stands in HTML."""
    dots = [dot for series in chart.series for dot in series.dots]
    place_x = _scale([*chart.ticks], LEFT, WIDTH - RIGHT, linear=chart.steps)
    lows, highs = _reach(dots, chart.line)
    place_y = _scale([lows, highs], HEIGHT - BOTTOM, TOP, linear=False)
    title = escape(f"{chart.title}, {chart.y_title}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}" font-family="{FONTS}" font-size="11" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="15" font-size="13" font-weight="600">{title}</text>',
        *_legend(chart.series),
    ]
    for value in y_ticks(lows, highs):
        y = place_y(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{FAINT}"/>')
        parts.append(_text(LEFT - 5, y + 4, short(value), "end"))
    for value, label in chart.ticks.items():
        parts.append(_text(place_x(value), HEIGHT - BOTTOM + 15, label, "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, chart.x_title, "middle"))
    if chart.line is not None:
        y = place_y(chart.line)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{INK}" stroke-dasharray="5 3"/>'
        )
    for index, series in enumerate(chart.series):
        parts += _drawn(series, index, _beside(chart, index, place_x), place_y, (lows, highs))
    return "\n".join([*parts, "</svg>"])


def y_ticks(low: float, high: float) -> list[float]:
    """Round values between two, about as many as there is room for."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _STEPS:
        values = [step * 10.0**decade for decade in decades for step in steps]
        found = [value for value in values if low * 0.999 <= value <= high * 1.001]
        if len(found) >= 4:
            return found
    # A narrow range, of 1 to 10 times `width`: even steps, as on a linear axis.
    width = 10.0 ** math.floor(math.log10(high - low))
    step = next(width * part for part in (0.2, 0.5, 1, 2) if (high - low) / width / part <= 7)
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def short(value: float) -> str:
    """ "0.5", "20", "5k", "2M"."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor * 0.9999:
            return f"{value / factor:g}{letter}"
    return f"{value:.4g}"


def _reach(dots: Sequence[Dot], line: float | None) -> tuple[float, float]:
    """Lowest and highest value, with room for intervals, but not for endless ones."""
    values = [dot.y for dot in dots] + ([line] if line is not None else [])
    if not values:
        return 1.0, 10.0
    low, high = min(values), max(values)
    # What was seen is always inside.
    low = min([low, *(value for dot in dots for value in dot.seen)])
    high = max([high, *(value for dot in dots for value in dot.seen)])
    low = max(low / 4, min([low, *(dot.low for dot in dots if dot.low > 0)]))
    high = min(high * 4, max([high, *(dot.high for dot in dots)]))
    return low / 1.15, high * 1.15


def _scale(
    values: Sequence[float], first: float, last: float, *, linear: bool
) -> Callable[[float], float]:
    convert: Callable[[float], float] = (lambda value: value) if linear else math.log
    low, high = convert(min(values)), convert(max(values))
    width = high - low or 1.0
    margin = 12 if first < last else 0
    span = last - first - 2 * margin
    return lambda value: first + margin + span * (convert(value) - low) / width


def _legend(series: Sequence[Series]) -> list[str]:
    parts, x = [], float(LEFT)
    for index, one in enumerate(series):
        parts.append(_mark(index, x + 5, 30))
        parts.append(_text(x + 14, 34, one.name, "start"))
        x += 30 + 6.2 * len(one.name)
    return parts


def _beside(
    chart: Chart, index: int, place_x: Callable[[float], float]
) -> Callable[[float], float]:
    """Series stand next to each other, so that their intervals do not cover each other."""
    shift = MARK_WIDTH * (index - (len(chart.series) - 1) / 2)
    return lambda value: place_x(value) + shift


def _drawn(
    series: Series,
    index: int,
    place_x: Callable[[float], float],
    place_y: Callable[[float], float],
    reach: tuple[float, float],
) -> list[str]:
    colour, low, high = COLOURS[index % len(COLOURS)], *reach
    dots = sorted(series.dots, key=lambda dot: dot.x)
    way = "L".join(f"{place_x(dot.x):.1f} {place_y(dot.y):.1f}" for dot in dots)
    parts = [f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="1.5"/>'] if way else []
    for dot in dots:
        x, bottom, top = place_x(dot.x), max(dot.low, low), min(dot.high, high)
        parts.append(
            f'<path d="M{x:.1f} {place_y(bottom):.1f}V{place_y(top):.1f}" stroke="{colour}" '
            f'stroke-width="{MARK_WIDTH}" stroke-opacity="0.3"/>'
        )
        if dot.seen:
            bottom, top = place_y(min(dot.seen)), place_y(max(dot.seen))
            parts.append(f'<path d="M{x:.1f} {bottom:.1f}V{top:.1f}" stroke="{colour}"/>')
        parts.append(_mark(index, x, place_y(dot.y)))
    return parts


def _mark(index: int, x: float, y: float) -> str:
    colour = COLOURS[index % len(COLOURS)]
    kind = MARKS[index % len(MARKS)]
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    if kind == "square":
        return f'<path d="M{x - 3:.1f} {y - 3:.1f}h6v6h-6z" fill="{colour}"/>'
    if kind == "triangle":
        return f'<path d="M{x:.1f} {y - 4:.1f}l4 7h-8z" fill="{colour}"/>'
    return f'<path d="M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4z" fill="{colour}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
