"""Text from jinja2 templates: Markdown tables, model cards, the report's page."""

from pathlib import Path
from typing import Any

import jinja2

__all__ = ["render"]


def render(template: Path, **values: Any) -> str:
    """Fill a template. Values are escaped where it is HTML; one that is missing is an error.

    Filters of numbers: `0.5123|percent` is 51.2, `0.5123|decimals` 0.512, `|signed` +0.512.
    """
    environment = jinja2.Environment(
        autoescape=".html" in template.suffixes, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": lambda value: f"{100 * value:.1f}",
        "decimals": lambda value: f"{value:.3f}",
        "signed": lambda value: f"{value:+.3f}",
    }
    return environment.from_string(template.read_text(encoding="utf-8")).render(**values)
