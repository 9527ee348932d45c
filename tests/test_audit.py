"""What the check makes of what pip-audit finds, and of advisories that cannot be had."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).resolve().parents[1] / ".ci" / "audit"
CLEAN = {"name": "lxml", "version": "5.1", "vulns": []}
VULNERABLE = {"name": "lxml", "version": "5.1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["5.2"]}]}
UNKNOWN = {"name": "lxml", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([CLEAN], 0, "1 packages audited, 0 known vulnerabilities"),
        ([CLEAN, VULNERABLE], 1, "lxml 5.1: PYSEC-1, mended in 5.2"),
        ([UNKNOWN], 0, "NOT AUDITED: the service knows none of the packages: not found"),
        (None, 0, "NOT AUDITED: the advisories could not be had: Could not connect"),
    ],
    ids=["clean", "vulnerable", "unknown", "unreachable"],
)
def test_a_vulnerability_fails_the_check_and_a_service_that_is_away_does_not(
    tmp_path: Path, packages: list[object] | None, status: int, said: str
) -> None:
    if not AUDIT.exists():
        pytest.skip("the check's own scripts are not beside the tests")
    command = tmp_path / "pip-audit"
    report = "" if packages is None else json.dumps({"dependencies": packages})
    command.write_text(
        f"#!{sys.executable}\nimport sys\nreport = {report!r}\n"
        "if report:\n    open(sys.argv[sys.argv.index('--output') + 1], 'w').write(report)\n"
        "sys.exit('Could not connect')\n"
    )
    command.chmod(0o755)
    run = subprocess.run([sys.executable, str(AUDIT), str(command)], capture_output=True, text=True, check=False)
    assert run.returncode == status
    assert said in run.stdout
