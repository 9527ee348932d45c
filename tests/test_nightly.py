"""The script for the night does what its page says: silence, or one message to the right people."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, Proof
from ledger_sync.dialects import open_engine
from ledger_sync.testing import Books
from tests.conftest import make_sqlite

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "nightly-verify.md"
COMMAND = "from ledger_sync.contrib.cli import main; main()"
(SCRIPT,) = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """A folder with the script, and a ``notify`` that notes what it is told."""
    for name, content in (
        ("nightly-proof", SCRIPT),
        ("ledger-sync", f'#!/bin/sh\nexec {sys.executable} -c "{COMMAND}" "$@"\n'),
        ("notify", '#!/bin/sh\necho "$1" >> notified\n'),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def passes(night: Path, url: str) -> tuple[int, str]:
    """The script's status, and what somebody was told."""
    environment = {**os.environ, "PATH": f"{night}{os.pathsep}{os.environ['PATH']}", "LEDGER_SYNC_DATABASE_URL": url}
    run = subprocess.run([night / "nightly-proof"], cwd=night, env=environment, capture_output=True, check=False)
    told = night / "notified"
    return run.returncode, told.read_text(encoding="utf-8") if told.exists() else ""


def test_a_night_with_clean_books_a_night_with_a_fault_and_a_night_without_a_database(
    night: Path, sync: LedgerSync
) -> None:
    url = f"sqlite:///{night / 'books.db'}"
    engine = make_sqlite(night / "books.db")
    factory = sessionmaker(engine)
    sync.attach(factory)
    with factory.begin() as session:
        Books(sync, session, "acme").invoice("supplier", 900)
    assert passes(night, url) == (0, "")
    with factory.begin() as session, sync.paused(session):
        Books(sync, session, "acme", numbers=count(10)).invoice("supplier", 70)
    engine.dispose()
    assert passes(night, url) == (1, "The subledgers are not in sync: see proofs.json\n")
    proof = Proof.model_validate_json((night / "proofs.json").read_text(encoding="utf-8"))
    assert [cause.name for cause in proof.account("2400").causes] == ["missing"]
    (night / "notified").unlink()
    assert passes(night, f"sqlite:///{night / 'elsewhere.db'}") == (2, "The proof could not be taken\n")


def test_a_user_who_may_only_read_can_take_the_proof(postgresql_engine: Engine, sync: LedgerSync) -> None:
    with Session(postgresql_engine) as session:
        Books(sync, session, "acme").invoice("supplier", 70)
        session.commit()
        schema = session.scalar(text("SELECT current_schema()"))
    options = {"options": f"-csearch_path={schema} -cdefault_transaction_read_only=on"}
    reader = open_engine(postgresql_engine.url.render_as_string(hide_password=False), connect_args=options)
    with Session(reader) as session:
        assert not sync.verify(session, "acme").clean
    reader.dispose()
