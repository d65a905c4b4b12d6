"""How Sphinx makes the site of these pages: `make docs`."""

import os

import parallax

project = "parallax"
author = "the parallax authors"
version = release = parallax.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
html_theme = "furo"
pygments_dark_style = "monokai"
html_title = "parallax"
html_show_copyright = False
exclude_patterns = ["_build"]

# The headings that links of the pages lead to: `routing.md#nested-calls`.
myst_heading_anchors = 4

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "inherited-members": False}

# `PARALLAX_DOCS_OFFLINE=1` builds without the network, and without links to Python's own pages.
if not os.environ.get("PARALLAX_DOCS_OFFLINE"):
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
    }
