"""A comparison as one HTML page that needs nothing else: no file, no network, and no script to be read."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from invsolve._version import __version__
from invsolve.analysis.comparison import Comparison
from invsolve.data.files import check_writable, is_one_of, written_aside
from invsolve.errors import OptionError, OutputError
from invsolve.report.picture import Picture

FIRST_ROWS = 100  # that are there without a script, and on each page of the table with it
_CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), "�")


def check_report(path: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """See before any work that a page can be made and written to `path`.

    Raises:
        OptionError: matplotlib or Jinja2 is not installed.
        OutputError: see `check_writable`; or `path` is one of the inputs.
    """
    for module, name in (("jinja2", "Jinja2"), ("matplotlib", "matplotlib")):
        if importlib.util.find_spec(module) is None:
            raise OptionError(f"reports need {name}, which is not installed: pip install 'invsolve[report]'")
    if is_one_of(path, inputs):
        raise OutputError(f"report {path} is an input; choose another name")
    check_writable(path, overwrite)


def write_report(
    comparison: Comparison,
    path: str | Path,
    *,
    title: str | None = None,
    overwrite: bool = False,
    command: str = "",
    pictures: Sequence[Picture] | None = None,
) -> None:
    """Write a comparison, or one method's solution, as a self-contained HTML page.

    Args:
        comparison: what `compare` or `compare_solutions` returned; the latter takes a single file with `least=1`.
        path: the page to write.
        title: its title; by default it names the model and the methods.
        overwrite: replace an existing page.
        command: the command line that makes the page again, which it then tells.
        pictures: those to show; by default all that there are.

    Raises:
        OptionError: matplotlib or Jinja2 is not installed.
        OutputError: `path` exists and must not be overwritten, or cannot be written.
    """
    check_report(Path(path), overwrite)
    from invsolve.report.pictures import pictures_of

    shown = pictures_of(comparison) if pictures is None else pictures
    text = render(comparison, shown, title or default_title(comparison), datetime.now(UTC), command)
    with written_aside(Path(path), overwrite) as aside:
        aside.write_text(text, encoding="utf-8", errors="replace")


def default_title(comparison: Comparison) -> str:
    """The model and the methods, the baseline last."""
    model = next(iter(comparison.solutions.values())).attributes.get("model") or "solutions"
    names = [name for name in comparison.methods if name != comparison.baseline]
    if not names:
        return f"{model} by {comparison.baseline}"
    told = ", ".join(names) if len(names) < 4 else f"{len(names)} methods"
    return f"{model}: {told} against {comparison.baseline}"


def render(
    comparison: Comparison, pictures: Sequence[Picture], title: str, created: datetime, command: str = ""
) -> str:
    """The text of the page; the same but for `created` where all else is the same."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from invsolve.report import provenance, words
    from invsolve.report.inline import InlinePictures
    from invsolve.report.rows import rows_of

    environment = Environment(
        loader=PackageLoader("invsolve.report"),
        autoescape=lambda name: name is not None and name.startswith("page.html"),  # not the style and the script
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["name"] = words.name
    inline = InlinePictures()
    figures = [(picture, Markup(inline.add(picture))) for picture in pictures]
    style = environment.get_template("page.css.j2").render(pictures=inline.css)
    script = environment.get_template("page.js").render()
    rows = rows_of(comparison)
    text = environment.get_template("page.html.j2").render(
        comparison=comparison,
        title=title,
        created=created.isoformat(timespec="seconds"),
        command=command,
        version=__version__,
        figures=figures,
        words=words,
        problem=provenance.problem(comparison),
        origins=provenance.origins(comparison),
        rows=rows,
        first=rows.first(FIRST_ROWS),
        per_page=FIRST_ROWS,
        data=Markup(embedded(rows.to_json())),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    return text.translate(_CONTROLS)


def embedded(document: Any) -> str:
    """JSON that no text within can end early: `<`, `>` and `&` are escaped as JSON allows."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _hash(text: str) -> str:
    """Of an inline style or script, for the page's security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
