"""The README does what it says: its example runs, and the output it shows is the real one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import shared_file
from tests.test_cli import ledger_sync

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_example_of_application_code_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(blocks("python")[0], encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["[Decimal('18750.00')]", "0.00"]


def test_the_output_on_real_books_is_the_real_output(tmp_path: Path) -> None:
    source = shared_file("saft/toyen_lekefabrikk_2017.xml")
    (tmp_path / source.name).write_bytes(source.read_bytes())
    shown = next(block for block in blocks("console") if "import-saft" in block)
    commands = [line.removeprefix("$ ledger-sync ").split() for line in shown.splitlines() if line.startswith("$ ")]
    printed = []
    for arguments in commands:
        run = ledger_sync(*arguments, cwd=tmp_path, columns=100)
        assert run.returncode == 0, run.stderr
        printed += [line.rstrip() for line in run.stdout.splitlines() if "━━ " not in line and "/158" not in line]
    expected = [line.rstrip() for line in shown.splitlines() if not line.startswith("$ ")]
    assert [line for line in printed if line] == [line for line in expected if line]


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_there_are_two_commands_before_all_others() -> None:
    commands = [line for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert "ledger-sync demo" in commands[0]
    assert "pytest" in commands[1]
