"""Fill the templates of model cards, one for each kind of training."""

from collections.abc import Mapping
from pathlib import Path
from string import Template

from vjepa_interfaces.tables import markdown_table

TEMPLATES = Path(__file__).with_name("cards")
"""Folder of the templates, in which dollar signs precede the names of fields."""


def model_card(kind: str, folder: Path | str, **fields: object) -> str:
    """Return the text of the `MODEL_CARD.md` of a bundle.

    Args:
        kind: name of a template.
        folder: folder of the bundle; its name is the title.
        fields: all other fields of the template.
    """
    template = Template((TEMPLATES / f"{kind}.md").read_text(encoding="utf-8"))
    return template.substitute(fields, name=Path(folder).name)


def figures_table(figures: Mapping[str, float]) -> str:
    """Return the figures of a training by name as a Markdown table."""
    rows = [(name.replace("_", " "), f"{value:.4g}") for name, value in figures.items()]
    return markdown_table([("figure", "value"), *rows])
