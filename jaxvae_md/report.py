"""A self-contained HTML report: one file with its figures, tables and style inside.

No script, no network, readable in light and dark mode and on paper. Every text is escaped.
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from pathlib import Path

from matplotlib.figure import Figure

from jaxvae_md.atomic import write_bytes
from jaxvae_md.errors import FileError

DPI = 150
_NUMBER = ' class="number"'
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A matplotlib figure, or the path of a PNG file, with its caption.

    `alt` describes it to those who do not see it (default: the caption).
    """

    image: Figure | Path
    caption: str
    alt: str = ""


@dataclass(frozen=True)
class Table:
    """A table; numbers are right-aligned and rounded to four digits, None is left empty."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs of text (separated by an empty line), then tables, then pictures."""

    heading: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure as a PNG of 150 dots per inch; a reader never meets half a file.

    **Raises:** `WriteError` when the file cannot be written.

    ```python
    save_figure(plot.parity(...), "parity.png")
    ```
    """
    write_bytes(path, _png(figure))


def write_report(
    path: str | Path,
    title: str,
    summary: str,
    facts: Sequence[tuple[str, str]] = (),
    sections: Sequence[Section] = (),
) -> None:
    """Writes one HTML file with everything inside; a reader never meets half a file.

    **Arguments:** `summary` one paragraph of plain sentences; `facts` pairs of name and value
    shown below it; `sections` in the order in which they are read.
    **Raises:** `FileError` when a picture is no PNG file; `WriteError` when the report cannot be
    written. An older report is then left as it was.

    ```python
    write_report("report.html", "Silicon", "The melt is missing.", [("frames", "150")],
                 [Section("Parity", pictures=[Picture(figure, "Energies and forces.")])])
    ```
    """
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="summary">{escape(summary)}</p>']
    if facts:
        pairs = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
        parts.append(f"<dl>{''.join(pairs)}</dl>")
    if len(sections) > 2:
        links = (
            f'<li><a href="#section-{i}">{escape(section.heading)}</a></li>'
            for i, section in enumerate(sections, 1)
        )
        parts.append(f'<nav aria-label="Contents"><ol>{"".join(links)}</ol></nav>')
    num_tables = num_pictures = 0
    for i, section in enumerate(sections, 1):
        parts.append(f'<section id="section-{i}"><h2>{escape(section.heading)}</h2>')
        parts += [f"<p>{escape(text)}</p>" for text in section.text.split("\n\n") if text.strip()]
        for table in section.tables:
            num_tables += 1
            parts.append(_table(table, num_tables))
        for picture in section.pictures:
            num_pictures += 1
            parts.append(_picture(picture, num_pictures))
        parts.append("</section>")
    body = "\n".join(parts)
    write_bytes(path, _PAGE.format(title=escape(title), style=_STYLE, body=body).encode())


def _table(table: Table, number: int) -> str:
    cells = [[_cell(value) for value in row] for row in table.rows]
    head = ""
    for column, name in enumerate(table.header):
        numeric = any(_NUMBER in row[column] for row in cells if column < len(row))
        head += f'<th scope="col"{_NUMBER if numeric else ""}>{escape(str(name))}</th>'
    rows = "\n".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    caption = f"<b>Table {number}.</b> {escape(table.caption)}"
    return (
        f'<div class="scroll"><table><caption>{caption}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _cell(value: object) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, bool) or type(value).__name__ == "bool":  # numpy's too
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, Real):
        text = f"{value:,}" if isinstance(value, Integral) else f"{float(value):.4g}"
        return f"<td{_NUMBER}>{text.replace('-', '&minus;')}</td>"
    return f"<td>{escape(str(value))}</td>"


def _picture(picture: Picture, number: int) -> str:
    if isinstance(picture.image, Figure):
        data = _png(picture.image)
    else:
        data = _read_png(Path(picture.image))
    width, height = (size * 96 // DPI for size in struct.unpack(">II", data[16:24]))
    alt = escape(picture.alt or picture.caption)
    source = base64.b64encode(data).decode()
    return (
        f'<figure><img src="data:image/png;base64,{source}" width="{width}" height="{height}" '
        f'alt="{alt}">\n'
        f"<figcaption><b>Figure {number}.</b> {escape(picture.caption)}</figcaption></figure>"
    )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _read_png(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        remedy = "draw the figure again, or leave it out"
        raise FileError(f"cannot be read: {error.strerror}", file=path, remedy=remedy) from error
    if not data.startswith(_PNG) or len(data) < 24:
        raise FileError("is not a PNG file", file=path, remedy="save the figure as PNG")
    return data


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4;
  --back: #ffffff; --card: #f6f8fa; --link: #0072B2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa5b1; --line: #343b44; --back: #14181d; --card: #1e242b;
    --link: #56B4E9; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 .75rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
p { max-width: 46rem; margin: .6rem 0; }
.summary { font-size: 1.1rem; }
a { color: var(--link); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .6rem;
  margin: 1.4rem 0; }
dl div { background: var(--card); border: 1px solid var(--line); border-radius: .4rem;
  padding: .55rem .8rem; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
nav ol { margin: 1rem 0; padding-left: 1.4rem; columns: 16rem; }
figure { margin: 1.5rem 0 2rem; }
img { display: block; max-width: 100%; height: auto; background: #ffffff; padding: .5rem;
  border: 1px solid var(--line); border-radius: .4rem; }
figcaption, caption { color: var(--soft); font-size: .92rem; text-align: left; }
figcaption { margin-top: .5rem; max-width: 46rem; }
caption { padding-bottom: .4rem; }
figcaption b, caption b { color: var(--ink); }
.scroll { overflow-x: auto; margin: 1.4rem 0; }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem .5rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--soft); }
tbody tr:nth-child(even) { background: var(--card); }
th.number, td.number { text-align: right; white-space: nowrap; }
@media print {
  :root { --ink: #000000; --soft: #444444; --line: #bbbbbb; --back: #ffffff; --card: #ffffff;
    --link: #000000; }
  @page { margin: 1.6cm; }
  html { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  h2 { break-after: avoid; }
  figure, tr, dl div { break-inside: avoid; }
  img { border: none; padding: 0; max-height: 22cm; width: auto; }
}
"""
