"""Tables as text: in Markdown for pages and cards, and with cells below each other for terminals."""

from collections.abc import Collection, Sequence


def markdown_table(rows: Sequence[Sequence[str]], aligned: bool = False) -> str:
    """Return `rows`, with the header first, as a Markdown table without a line break at its end.

    Args:
        rows: rows with equal numbers of cells.
        aligned: whether cells are padded to the width of their column, for a table that is read as text too.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) if aligned else 0 for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * max(width, 3) for width in widths])
    return "\n".join(f"| {' | '.join(map(str.ljust, row, widths))} |" for row in cells)


def text_table(rows: Sequence[Sequence[str]], right: Collection[int] = (), indent: str = "") -> str:
    """Return `rows` as aligned columns, two spaces apart, without a line break at the end.

    Args:
        rows: rows with equal numbers of cells.
        right: indices of the columns that are aligned to the right; the others are aligned to the left.
        indent: the beginning of each line.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [str.rjust if column in right else str.ljust for column in range(len(widths))]
    lines = []
    for row in rows:
        cells = (align(cell, width) for align, cell, width in zip(aligned, row, widths, strict=True))
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)
