"""How Sphinx builds the site: `nox -s docs`, strictly, without the network.

The reference is read from the docstrings of the real packages, which the session installs: so
are the signatures of what subclasses a framework's own classes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.cli import get_docs_for_click

from cosanneal import __version__
from cosanneal.cli.app import COMMANDS, app

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# Of all Keras runs on, this is what the session has.
os.environ.setdefault("KERAS_BACKEND", "jax")

HERE = Path(__file__).parent
WORDS = HERE / "reference" / "_commands.md"

project = "cosanneal"
author = "The cosanneal contributors"
copyright = author  # noqa: A001 - Sphinx' name
version = release = __version__

extensions = [
    "myst_nb",  # which is myst_parser, with notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = "off"  # the tutorials stand with what came out of them
exclude_patterns = ["README.md", "reference/_commands.md"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # links to headings, as in GitHub's rendering

# A name in the docstrings' backticks is code, and is not looked for.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

nitpicky = True
# Of the annotations' names: other packages', for whose inventories the network would be needed,
# and those of our own that are for type checkers alone.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!cosanneal\b).*"),
    (r"py:class", r"cosanneal\..*\b(ArrayT|_\w+)"),
    (
        r"py:class",
        r"cosanneal\.(core\.rules\.CycleRule|ensemble\.predict\.(outputs\.Reading|batches\.Batches)"
        r"|ensemble\.(arrays\.Kind|labels\.Labels|combined\.Combination)"
        r"|ensemble\.choose\.(diagnosis\.Evidence|budget\.Leaving)"
        r"|snapshots\.capture\.HostBuffers|snapshots\.(file\.TensorBytes|ranks\.Ranks|pieces\.Index)"
        r"|snapshots\.(lease\.Lease|storage\.RemoteFile|beside\.Beside)"
        r"|adapters\.torch\.restarts\.RestartNames)",
    ),
]

html_theme = "furo"
pygments_dark_style = "monokai"
html_title = "cosanneal"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def write_commands(_: Sphinx) -> None:
    """The command line's own help, in typer's own form, as the text of its page."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group, info_name="cosanneal")
    pages = []
    for name in COMMANDS:
        _, command, _ = group.resolve_command(context, [name])
        inner = typer.Context(command, info_name=name, parent=context)
        pages.append(get_docs_for_click(obj=command, ctx=inner, name=name, call_prefix="cosanneal"))
    text = "\n".join(pages)
    WORDS.write_text(re.sub("^# ", "## ", text, flags=re.MULTILINE), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """What is done before the pages are read."""
    app.connect("builder-inited", write_commands)
    return {"parallel_read_safe": True}
