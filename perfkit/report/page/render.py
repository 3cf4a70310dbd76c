"""Fills the templates of a run's pages; every text in them is escaped unless it is marked safe."""

from __future__ import annotations

from pathlib import Path

from perfkit.evidence.text import duration, interval, quantity

TEMPLATES = Path(__file__).parent / "template"
#: Filters for templates, nbconvert's among them.
FILTERS = {"quantity": quantity, "duration": duration}


def render(template: str, **facts: object) -> str:
    """The page that `template` (a file name) makes of `facts`."""
    from jinja2 import Environment, FileSystemLoader

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters.update(FILTERS)
    templates.globals.update(interval=interval)
    return str(templates.get_template(template).render(**facts))
