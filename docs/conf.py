"""Sphinx configuration. The build needs no network; warnings are errors in `make docs`."""

import re
import shutil
from importlib.metadata import version as installed_version
from pathlib import Path

project = "torchrl_stein"
author = "torchrl_stein contributors"
copyright = "2026, torchrl_stein contributors"
release = installed_version("torchrl_stein")
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "sphinx-mathjax-offline",  # formulas need no network
]
# Results lie beside what measured them; the site shows a copy. Findings are parts of other pages.
_HERE = Path(__file__).parent
shutil.copytree(_HERE.parent / "benchmarks" / "results", _HERE / "results", dirs_exist_ok=True)
exclude_patterns = ["_build", "results/robots_findings.md", "results/svpg_findings.md"]
default_role = "code"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# A page of the interface follows the __all__ of its folder: what is listed there appears.
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# Docstrings of TorchRL and torch base classes belong to their own sites.
autodoc_inherit_docstrings = False
add_module_names = False

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source", "Differs"]

html_theme = "pydata_sphinx_theme"
html_title = "torchrl_stein"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 6,
}
html_show_sourcelink = False

# Formulas stand in docstrings as plain text, |x - y|^2 and s* among them. In reStructuredText a bar
# opens a substitution and a star opens emphasis, so both are escaped, except where they are code.
_CODE = re.compile(r"(``.+?``|(?::\w+:)?`[^`]+`)")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2}(?=\w)[^*]+(?<=\w)\*{1,2})(?![\w*])")


def _escape(text):
    pieces = _EMPHASIS.split(text)
    pieces[::2] = [piece.replace("*", r"\*") for piece in pieces[::2]]
    return "".join(pieces).replace("|", r"\|")


def _escape_formulas(app, what, name, obj, options, lines):
    example = False
    for i, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            pieces = _CODE.split(line)
            pieces[::2] = [_escape(piece) for piece in pieces[::2]]
            lines[i] = "".join(pieces)


def _skip_tuple_fields(app, what, name, obj, skip, options):
    # The class docstring of a NamedTuple describes its fields; "Alias for field number 0" does not.
    return True if type(obj).__name__ == "_tuplegetter" else None


def _links_of_readme(app, path, parent, content):
    # README links files of the repository, a page of the site its neighbours.
    if path.name == "README.md":
        content[0] = content[0].replace("](docs/", "](").replace("](benchmarks/", "](")


def setup(app):
    """Connect the handlers above; Sphinx calls this by its name."""
    # Before napoleon, which runs at 500 and adds emphasis of its own.
    app.connect("autodoc-process-docstring", _escape_formulas, priority=400)
    app.connect("autodoc-skip-member", _skip_tuple_fields)
    app.connect("include-read", _links_of_readme)
