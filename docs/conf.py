"""Sphinx: the documentation as a site. ``python -m sphinx -W -b html docs docs/_build/html``."""

from __future__ import annotations

from importlib import metadata

project = "ledger_sync"
author = "The ledger_sync authors"
release = metadata.version("ledger-sync")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"ledger_sync {release}"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# a model's own docstring says what its fields are
autodoc_default_options = {
    "members": True,
    "exclude-members": "model_config, model_fields, model_computed_fields, model_post_init",
}
