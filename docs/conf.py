"""How the documentation is built: sphinx-build -W --keep-going -b html docs OUT.

Sphinx, because it is maintained and can take every warning for an error (MkDocs and its Material theme are in
maintenance mode); MyST, so that the pages are plain Markdown that reads as well on a code host; Furo, for its
dark mode and its narrow screens.  Nothing is fetched from the network, neither when the pages are built nor
when they are read.

html_parts.py is what the pages need beyond that: their order, the pictures that their own code draws
(blocks.py), links to the repository's other files, drawings that follow the theme, formulas that need no
script.  docstrings.py and command_line.py make the reference.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import html_parts

import xpnet

project = "xpnet"
author = "the xpnet developers"
version = release = xpnet.__version__
copyright = "the xpnet developers, MIT licence"

extensions = ["myst_parser", "sphinx_copybutton", "html_parts", "docstrings", "command_line"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_url_schemes = {"http": None, "https": None, "mailto": None, html_parts.SCHEME: {"url": "{{path}}"}}
exclude_patterns = ["_made", "drawings"]

html_theme = "furo"
html_title = f"xpnet {version}"
html_static_path = ["_static"]
html_css_files = ["pages.css", "reference.css"]
html_copy_source = False
html_math_renderer = "mathml"  # of html_parts: nothing to fetch
html_last_updated_fmt = None
pygments_style, pygments_dark_style = "friendly", "monokai"
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .go"
