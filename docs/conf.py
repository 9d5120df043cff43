"""Settings of the site that `make site` builds from the pages of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advkit import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "advkit"
author = "the advkit authors"
version = release = __version__
language = "en"
smartquotes = False  # they make one dash of the two of an option

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
source_suffix = {".md": "markdown"}  # a notebook beside the pages is not one of them

myst_heading_anchors = 4  # the same names as on a code host: `page.md#a-heading`

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

default_role = "code"  # `a` in a docstring

nitpicky = True
# Nothing is fetched while the site is built, so names of other packages have no pages to lead to.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|numpy|np|matplotlib|pathlib|collections|typing|nn)(\..*)?"),
    ("py:.*", r"Tensor|Figure"),
    ("py:.*", r"advkit\.(api\.(InFile|Values)|artifacts\..*|analyses\..*|images\..*)"),
]

html_theme = "furo"
html_title = f"advkit {release}"
html_copy_source = False
html_show_sourcelink = False
# Pages opened from a disk may not read each other, so results of a search are titles alone.
html_show_search_summary = False
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """Leave the tables behind the results out of the search: they have one title."""
    app.connect("source-read", _unsearched)


def _unsearched(_: Sphinx, name: str, source: list[str]) -> None:
    if name.startswith("results/"):
        source[0] = "---\nnosearch: true\n---\n\n" + source[0]
