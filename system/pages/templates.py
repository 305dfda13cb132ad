"""Renders a page in one file that opens offline: its template extends base.html, beside this module."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from system import language


def render(template: Path, **values: Any) -> str:
    """Renders a template.

    Args:
        template: It finds others in its own folder and in this one.
        values: Of its variables.

    Returns:
        HTML.
    """
    return _environment(template.parent).get_template(template.name).render(**values)


@cache
def _environment(folder: Path) -> jinja2.Environment:
    created = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    created.filters |= {
        "number": lambda value: f"{value:,}",
        "three": lambda value: "–" if value is None else f"{value:.3f}",
        "percent": percent,
        "counted": language.counted,
        "inflect": language.inflect,
        "breakable": breakable,
    }
    created.globals["_"] = language.translate
    created.globals["html_lang"] = lambda: language.TAGS[language.chosen()]
    return created


def percent(share: float | None) -> str:
    """Formats a share 0..1 as a percentage with one decimal."""
    return "–" if share is None else f"{100 * share:.1f} %"


def breakable(text: str) -> Markup:
    """Escapes a text for HTML, and lets its lines break after /, _ and -, where a long file name has its joints."""
    return Markup(re.sub("([/_-]+)", r"\1<wbr>", str(escape(text))))
