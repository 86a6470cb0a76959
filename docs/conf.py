"""How the documentation is built: `make docs`."""

from __future__ import annotations

from importlib.metadata import version as installed

project = "Spectral Shards"
copyright = "the authors of Spectral Shards"
version = release = installed("spectral-shards")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # Args, Returns, Raises
    "sphinx_click",
    "sphinx_copybutton",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "Spectral Shards"
html_show_sphinx = False
