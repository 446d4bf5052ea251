"""Matplotlib drawings as inline SVG that follows the page's colours, light and dark.

Drawings use sentinel colours (:func:`ink`), which no drawing needs for themselves; on the way out each becomes
a CSS variable. Nothing global is touched: no pyplot, and styles hold only inside ``rc_context``.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLASS_COLOURS = 8
LEGIBLE = 10.0  # CSS pixels: below it a drawing in a narrow window scrolls instead of shrinking
_NAMES = (
    *("ink", "muted", "rule", "student", "control", "teacher", "bad"),
    *(f"class-{number}" for number in range(CLASS_COLOURS)),
)
_SENTINELS = {name: f"#0a00{number:02x}" for number, name in enumerate(_NAMES, start=1)}
_VARIABLES = {sentinel: f"var(--{name})" for name, sentinel in _SENTINELS.items()}

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stillroom",
    "text.parse_math": False,
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "axes.titlesize": 11,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "patch.linewidth": 0,
}


def ink(name: str) -> str:
    """Sentinel of one of the page's colours: a role, ``ink``, ``muted``, ``rule``, ``bad``, ``class-0``."""
    return _SENTINELS[name]


def class_colour(number: int) -> str:
    """Sentinel of class ``number``; colours repeat after :data:`CLASS_COLOURS`."""
    return _SENTINELS[f"class-{number % CLASS_COLOURS}"]


def short(text: str, length: int = 22) -> str:
    """``text`` for a label in a drawing: no control characters, at most ``length`` characters."""
    clean = "".join(character if character.isprintable() else " " for character in text)
    return clean if len(clean) <= length else clean[: length - 1].rstrip() + "…"


def render(name: str, label: str, size: tuple[int, int], paint: Callable[[Axes], None]) -> str:
    """Draw one panel and return it as an ``<svg>`` element in a place in which it may scroll.

    Args:
        name: prefix of every id inside; must differ from every other drawing on the page.
        label: what the drawing shows, in a sentence, for those who cannot see it.
        size: width and height in CSS pixels at natural size; the drawing shrinks with its column.
        paint: draws into the axes.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = _STYLE | {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), ink("ink")),
        **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), ink("ink")),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), ink("muted")),
        "grid.color": ink("rule"),
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # Text stays text: the reader's own font draws what Matplotlib's lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        axes = figure.add_subplot()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        paint(axes)
        buffer = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return _inline(buffer.getvalue(), name, label, size)


def _inline(document: bytes, name: str, label: str, size: tuple[int, int]) -> str:
    root = ElementTree.fromstring(document)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {
            _local(key): _value(_local(key), value, name) for key, value in element.attrib.items() if value
        }
    drawing = ElementTree.tostring(root, encoding="unicode")
    for element in root.iter():
        if f"#{element.get('id')}" not in drawing:
            element.attrib.pop("id", None)
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": label,
        "style": f"max-width:{round(size[0] * 1.12)}px;--legible:{_legible(drawing, size[0])}px",
    }
    drawing = re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))
    return f'<div class="drawing">{drawing}</div>'


def _legible(drawing: str, width: int) -> int:
    """The least width in CSS pixels at which every letter is :data:`LEGIBLE` pixels high or more; 0 without letters."""
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", drawing)]
    return ceil(width * LEGIBLE / min(sizes)) if sizes else 0


def _local(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]


def _value(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    value = value.replace("url(#", f"url(#{name}-")
    if key == "style":
        value = re.sub(r"font: ([\d.]+px)[^;]*", r"font-size: \1", value)
        value = re.sub(r"font-family:[^;]*;?", "", value)
        value = re.sub(r"#0a00[0-9a-f]{2}", lambda match: _VARIABLES[match.group()], value)
    elif key in ("d", "x", "y"):
        value = re.sub(r"(\.\d\d)\d+", r"\1", value)
    return value
