"""One self-contained HTML page: tables that can be sorted, pictures, provenance, no network.

Its only script is ours, named in the page's policy by its hash: no other one runs.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from advkit.artifacts.document import Cell, Document, Figure, Sheet, Source, one_line

STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8").strip()
SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8").strip()
_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")
# Whatever a file's description holds, a browser that shows the page runs and fetches nothing of it.
POLICY = (
    f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_HASH}'"
)


def html(document: Document, description: Mapping[str, object]) -> str:
    """Return the whole page; everything that came from a file is escaped.

    Args:
        document: what it shows.
        description: the analysis' own description with its digest.
    """
    title = _text(document.title)
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>\n"
    )
    body = [f"<h1>{title}</h1>", '<h2 id="tables">Tables</h2>']
    for number, sheet in enumerate(document.sheets, start=1):
        body += _sheet(sheet, f"table-{number}")
    body += _notes(document.notes)
    for number, gallery in enumerate(document.figures(), start=1):
        body += [f'<h2 id="pictures-{number}">{_text(gallery.heading)}</h2>']
        body += [f"<p>{_text(gallery.told)}</p>"] if gallery.told else []
        body += ['<div class="pictures">', *map(_figure, gallery.figures), "</div>"]
    body += _provenance(document.sources, description)
    # Behind what it sorts; a browser without scripts shows the same page in its own order.
    tail = f"\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    return head + "\n".join(body) + tail


def _sheet(sheet: Sheet, name: str) -> Iterator[str]:
    # A box that scrolls must be reachable by keyboard, and say what it is; a caption inside it
    # would scroll away.
    yield f'<h3 id="{name}">{_text(sheet.caption)}</h3>'
    yield f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{name}">'
    yield f'<table class="sortable" aria-labelledby="{name}">\n<thead>'
    if any(text for text, _ in sheet.spans):
        yield f"<tr>{''.join(_span(*span) for span in sheet.spans)}</tr>"
    heads = (
        f'<th scope="col"{_kind(place, sheet)}>{_text(text)}</th>'
        for place, text in enumerate(sheet.head)
    )
    yield f"<tr>{''.join(heads)}</tr>\n</thead>\n<tbody>"
    for number, row in enumerate(sheet.rows):
        if number in sheet.breaks:
            yield "</tbody>\n<tbody>"
        yield f"<tr>{''.join(_cell(cell, place, sheet) for place, cell in enumerate(row))}</tr>"
    yield "</tbody>\n</table>\n</div>"
    yield from _notes(sheet.notes)


def _span(text: str, columns: int) -> str:
    if not text:
        return f'<td colspan="{columns}"></td>'
    return f'<th scope="colgroup" colspan="{columns}">{_text(text)}</th>'


def _kind(place: int, sheet: Sheet) -> str:
    return "" if place < sheet.words else ' class="figure"'


def _cell(cell: Cell, place: int, sheet: Sheet) -> str:
    text = f"<strong>{_text(cell.text)}</strong>" if cell.bold else _text(cell.text)
    if place < sheet.words:  # what the line is about heads it
        return f'<th scope="row">{text}</th>'
    return f'<td class="figure">{text}</td>'


def _notes(notes: tuple[str, ...]) -> list[str]:
    if not notes:
        return []
    return ['<ul class="notes">', *(f"<li>{_text(note)}</li>" for note in notes), "</ul>"]


def _figure(picture: Figure) -> str:
    data = base64.b64encode(picture.draw()).decode("ascii")
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{_text(picture.alt)}">'
    return f"<figure>{image}<figcaption>{_text(picture.title)}</figcaption></figure>"


def _provenance(sources: tuple[Source, ...], description: Mapping[str, object]) -> Iterator[str]:
    yield '<h2 id="provenance">Provenance</h2>'
    yield "<p>What each file says of itself, and the description of this page.</p>"
    for source in sources:
        yield f"<details><summary>{_text(source.name)}</summary>{_json(source.facts)}</details>"
    own = {key: value for key, value in description.items() if key != "parents"}
    yield f"<details><summary>this page</summary>{_json(own)}</details>"


def _json(value: Mapping[str, object]) -> str:
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True)
    safe = text.encode("utf-8", errors="replace").decode("utf-8")  # a lone surrogate has no bytes
    return f"<pre>{escape(safe)}</pre>"


def _text(text: str) -> str:
    return escape(one_line(text))
