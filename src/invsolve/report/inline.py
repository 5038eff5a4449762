"""Pictures as SVG elements of a page, whose colours are those of its themes."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from invsolve.report.picture import Picture
from invsolve.report.style import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG, _HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_NAMES = {color.lower(): name for name, color in PALETTE.items()}
_FONTS = re.compile(r"""\s*'DejaVu Sans'[^;]*""")  # matplotlib's list of families: a page has its own
_LONG = re.compile(r"-?\d+\.\d{3,}")
_DPI = 200  # of what is rasterized


class InlinePictures:
    """SVG elements for one page; what they share of styles is told once, in `css`.

    No element has a style of its own, so that a page's security policy need not allow any.
    """

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}

    @property
    def css(self) -> str:
        """The rules of all elements made so far; colours are variables --fig-NAME, NAME as in `PALETTE`."""
        return "\n".join(f".{name}{{{style}}}" for style, name in self._classes.items())

    def add(self, picture: Picture) -> str:
        """The picture as an element <svg>, with its title and caption for those who do not see it."""
        root = _parsed(_drawn(picture.draw(), picture.name))
        used = {match for e in root.iter() for v in e.attrib.values() for match in re.findall(r"#([\w-]+)", v)}
        for element in root.iter():
            element.tag = element.tag.removeprefix(_SVG)
            self._style(element, picture.name)
            _refer(element, picture.name, used)
            if element.tag not in ("text", "tspan"):
                element.text = None
            element.tail = None
        for unwanted in ("width", "height", "version"):
            root.attrib.pop(unwanted, None)
        described = f"{picture.name}-title", f"{picture.name}-text"
        root.attrib |= {"role": "img", "aria-labelledby": described[0], "aria-describedby": described[1]}
        for place, (tag, name, text) in enumerate(
            (("title", described[0], picture.title), ("desc", described[1], picture.caption))
        ):
            told = ET.Element(tag, {"id": name})
            told.text = text
            root.insert(place, told)
        return ET.tostring(root, encoding="unicode")

    def _style(self, element: ET.Element, prefix: str) -> None:
        style = element.attrib.pop("style", "").replace("url(#", f"url(#{prefix}-")
        for key in ("fill", "stroke"):  # as hatched patterns have them: an attribute takes no variable
            if key in element.attrib:
                style += f";{key}:{element.attrib.pop(key)}"
        kept = [part.strip() for part in _FONTS.sub("", style).split(";")]
        themed = ";".join(_themed(part) for part in kept if part and not part.endswith(":"))
        if themed:
            element.set("class", self._classes.setdefault(themed, f"f{len(self._classes)}"))


def _drawn(figure: Figure, name: str) -> str:
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", dpi=_DPI, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return file.getvalue()


def _parsed(svg: str) -> ET.Element:
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    return root


def _themed(declaration: str) -> str:
    """A declaration of CSS with the palette's colours as variables."""

    def variable(match: re.Match[str]) -> str:
        name = _NAMES.get(match[0].lower())
        return match[0] if name is None else f"var(--fig-{name})"

    return re.sub(r"#[0-9a-fA-F]{6}\b", variable, re.sub(r":\s+", ":", declaration))


def _refer(element: ET.Element, prefix: str, used: set[str]) -> None:
    """Names that are unique on the page, for parts that others refer to; numbers with no more digits than are seen."""
    name = element.attrib.pop("id", None)
    if name in used:
        element.set("id", f"{prefix}-{name}")
    for key, value in list(element.attrib.items()):
        if key == _HREF:
            del element.attrib[key]
            element.set("href", f"#{prefix}-{value[1:]}" if value.startswith("#") else "".join(value.split()))
        elif value.startswith("url(#"):
            element.set(key, f"url(#{prefix}-{value[5:]}")
        elif key in ("d", "x", "y"):
            element.set(key, " ".join(_LONG.sub(lambda m: f"{float(m[0]):.2f}", value).split()))
