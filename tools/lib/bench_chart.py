"""Draws the result of one benchmark as an SVG: per case a bar for morsel and one for the baseline.

Cases of one unit share a panel with one axis; the axis is logarithmic where the values of a panel
span more than a factor of 50. A bar ends at the median, the thin line spans all samples.
"""
import math
import statistics
from xml.sax.saxutils import escape

WIDTH, LABELS, VALUES = 980, 350, 110  # of the picture; of the columns at the left and right
BAR, GAP, PANEL_HEAD, PANEL_FOOT = 13, 12, 30, 40
OURS, THEIRS, INK, FAINT = "#1f6f8b", "#c9a66b", "#222222", "#d9d9d9"
LOG_FROM = 50


def number(value):
    """1234 -> "1,234", 0.00123 -> "0.00123": three digits, never an exponent."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


class Axis:
    """Places values of a panel between two x positions."""

    def __init__(self, values, left, right):
        positive = [value for value in values if value > 0] or [1]
        self.left, self.right = left, right
        self.is_log = max(positive) / min(positive) > LOG_FROM
        if self.is_log:
            self.low = math.floor(math.log10(min(positive)) - 0.05)
            self.high = math.ceil(math.log10(max(positive)))
        else:
            step = 10 ** math.floor(math.log10(max(positive)))
            while max(positive) / step < 4:
                step /= 2
            self.step = step
            self.low, self.high = 0, step * math.ceil(max(positive) / step)

    def at(self, value):
        if self.is_log:
            value = math.log10(value) if value > 0 else self.low
        share = (value - self.low) / (self.high - self.low)
        return self.left + max(0, min(1, share)) * (self.right - self.left)

    def ticks(self):
        if self.is_log:
            return [10 ** power for power in range(self.low, self.high + 1)]
        return [self.step * i for i in range(round(self.high / self.step) + 1)]


class Picture:
    def __init__(self):
        self.parts, self.y = [], 0

    def text(self, x, y, text, size=12, anchor="start", color=INK, weight="normal"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" '
                          f'text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>')

    def box(self, x, y, width, height, color):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" '
                          f'height="{height}" fill="{color}"/>')

    def line(self, x1, y1, x2, y2, color):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                          f'stroke="{color}" stroke-width="1"/>')

    def svg(self):
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.y}" '
                f'viewBox="0 0 {WIDTH} {self.y}" font-family="DejaVu Sans, Helvetica, sans-serif">')
        ground = f'<rect width="{WIDTH}" height="{self.y}" fill="#ffffff"/>'
        return "\n".join([head, ground, *self.parts, "</svg>", ""])


def draw_bar(picture, axis, samples, y, color):
    median = statistics.median(samples)
    picture.box(axis.left, y, axis.at(median) - axis.left, BAR, color)
    low, high = axis.at(min(samples)), axis.at(max(samples))
    if high - low > 2:
        picture.line(low, y + BAR / 2, high, y + BAR / 2, INK)
    picture.text(max(axis.at(median), high) + 5, y + BAR - 2.5, number(median), 11)


def case_height(case):
    return BAR * (2 if case["theirs"] else 1) + GAP + (0 if case["theirs"] else BAR)


def draw_case(picture, axis, case):
    y = picture.y
    picture.text(LABELS - 12, y + BAR - 2.5, case["case"], 12, "end", weight="bold")
    if case.get("failed"):
        picture.text(axis.left + 4, y + BAR - 2.5, "failed: " + case["failed"][:80], 11,
                     color="#a01010")
    elif case["ours"]:
        draw_bar(picture, axis, case["ours"], y, OURS)
    if case["theirs"]:
        picture.text(LABELS - 12, y + 2 * BAR - 2.5, case["baseline_name"], 11, "end",
                     color="#666666")
        draw_bar(picture, axis, case["theirs"], y + BAR, THEIRS)
    picture.y += case_height(case)


def draw_panel(picture, unit, cases):
    values = [value for case in cases for value in case["ours"] + case["theirs"]]
    axis = Axis(values, LABELS, WIDTH - VALUES)
    scale = ", logarithmic scale" if axis.is_log else ""
    picture.text(LABELS, picture.y + 16, f"{unit}{scale}; shorter is better"
                 if unit in TIMES else f"{unit}{scale}", 12, weight="bold")
    picture.y += PANEL_HEAD
    bottom = picture.y + sum(case_height(case) for case in cases)
    for tick in axis.ticks():
        picture.line(axis.at(tick), picture.y - 5, axis.at(tick), bottom, FAINT)
        picture.text(axis.at(tick), bottom + 14, f"{tick:,.12g}", 10, "middle",
                     "#555555")
    for case in cases:
        draw_case(picture, axis, case)
    picture.line(axis.left, bottom - picture_height(cases), axis.left, bottom, INK)
    picture.y = bottom + PANEL_FOOT


def picture_height(cases):
    return sum(case_height(case) for case in cases) + 5


TIMES = {"ns", "us", "ms", "s", "kB"}


def draw(result):
    """The SVG text for one result document."""
    picture = Picture()
    machine = result["machine"]
    picture.text(20, 30, f"morsel: bench {result['bench']}", 18, weight="bold")
    picture.text(20, 50, f"{machine.get('cpu', '')}, {machine.get('cores', '?')} cores, "
                 f"Linux {machine.get('kernel', '?')}; medians, thin lines span all samples", 11,
                 color="#555555")
    picture.box(20, 64, 14, BAR, OURS)
    picture.text(40, 75, "morsel")
    picture.box(110, 64, 14, BAR, THEIRS)
    picture.text(130, 75, "what it is compared to (named below each case)")
    picture.y = 96
    units = list(dict.fromkeys(case["unit"] for case in result["cases"]))
    for unit in units:
        draw_panel(picture, unit, [case for case in result["cases"] if case["unit"] == unit])
    return picture.svg()
