"""The code on the pages of the documentation runs, page by page, each in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "```python" in page.read_text(encoding="utf-8")]
RUN = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()], pattern="*.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_code_on_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = RUN.parse(page)
    blocks = list(document.examples())
    assert blocks
    for block in blocks:
        block.evaluate()
    if (engine := document.namespace.get("engine")) is not None:
        engine.dispose()
