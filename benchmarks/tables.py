"""Tables of ratios: as text, as CSV and as Markdown."""

import csv
import io
from pathlib import Path

import keras

from benchmarks.copies import THREADS
from keras_learnact import files
from training import records


def markdown(rows: list[dict], without: tuple[str, ...] = ()) -> str:
    """A table, one line for each row; columns in which no row has anything are left out."""
    columns = [
        name
        for name in rows[0]
        if name not in without and any(row[name] not in (None, "") for row in rows)
    ]
    cells = [columns] + [[text(row[name]) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numbers = [any(isinstance(row[name], float) for row in rows) for name in columns]
    rule = ["-" * (w - 1) + ":" if n else "-" * w for w, n in zip(widths, numbers, strict=True)]
    lines = [cells[0], rule, *cells[1:]]
    return "\n".join(
        "| "
        + " | ".join(
            cell.rjust(w) if n else cell.ljust(w)
            for cell, w, n in zip(line, widths, numbers, strict=True)
        )
        + " |"
        for line in lines
    )


def text(value) -> str:
    """Three digits of a ratio; they never need an exponent."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def write(
    folder: str,
    name: str,
    about: str,
    found: dict[str, list[dict]],
    sections: dict[str, list[dict]],
    without: tuple[str, ...],
) -> None:
    """Writes FOLDER/NAME_BACKEND.md and a CSV file of each table; each is there whole or not.

    Args:
        about: text in front of the tables of the page.
        found: the rows of each CSV file by its name; none is written for a table without rows.
        sections: the tables of the page by their headings.
        without: columns that the headings say.
    """
    stem = f"{name}_{keras.backend.backend()}"
    for table, rows in found.items():
        if rows:
            save(Path(folder, f"{stem}_{table}.csv"), comma_separated(rows))
    page = [f"# {name} on {keras.backend.backend()}", f"{measured_with()}.", about]
    for heading, rows in sections.items():
        if rows:
            page += [f"## {heading}", markdown(rows, without)]
    save(Path(folder, f"{stem}.md"), "\n\n".join(part.strip() for part in page) + "\n")
    print(f"\nEverything is in {folder}")


def comma_separated(rows: list[dict]) -> str:
    lines = io.StringIO()
    writer = csv.DictWriter(lines, rows[0], lineterminator="\n")
    writer.writeheader()
    for row in rows:  # four digits: what is behind them is noise
        writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
    return lines.getvalue()


def measured_with() -> str:
    """The versions, and the threads."""
    versions = ", ".join(f"{package} {version}" for package, version in records.versions().items())
    return f"{versions}; {THREADS} threads"


def save(path: Path, content: str) -> None:
    """Writes a file that is there whole or not, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.written(path, "w") as file:
        file.write(content)
