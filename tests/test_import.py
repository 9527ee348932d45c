"""What importing the library brings along: what it stands on, and none of the extras."""

from __future__ import annotations

import subprocess
import sys

EXTRAS = {
    "typer",
    "rich",
    "jinja2",
    "babel",
    "lxml",
    "psycopg",
    "pymysql",
    "asyncpg",
    "aiosqlite",
    "fastapi",
    "starlette",
    "uvicorn",
    "socketio",
    "celery",
    "procrastinate",
    "tqdm",
    "pytest",
    "hypothesis",
}


def imported_by(statements: str) -> set[str]:
    """The modules that a fresh interpreter holds after some statements."""
    program = f"{statements}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_import_and_use_bring_none_of_the_extras() -> None:
    use = (
        "import sqlalchemy.orm, ledger_sync, ledger_sync.models\n"
        "maker = sqlalchemy.orm.sessionmaker(sqlalchemy.create_engine('sqlite://'))\n"
        "ledger_sync.LedgerSync().attach(maker)"
    )
    assert {module.partition(".")[0] for module in imported_by(use)} & EXTRAS == set()


def test_the_ready_made_models_are_mapped_when_they_are_asked_for() -> None:
    assert "ledger_sync.models.ready" not in imported_by("import ledger_sync.models")
    assert "ledger_sync.models.guards" in imported_by("from ledger_sync.models import JournalEntry")


def test_no_dialect_is_imported_before_such_a_database_is_met() -> None:
    bare = imported_by("import sqlalchemy.orm, pydantic, blinker")
    dialects = {module for module in imported_by("import ledger_sync") if module.startswith("sqlalchemy.dialects.")}
    assert dialects <= bare


def test_a_run_needs_no_metadata_of_the_package() -> None:
    """A host may have the package in a zip, or frozen with its own code."""
    use = (
        "import importlib.metadata, sqlalchemy.orm\n"
        "def gone(name): raise importlib.metadata.PackageNotFoundError(name)\n"
        "importlib.metadata.version = importlib.metadata.distribution = gone\n"
        "import ledger_sync, ledger_sync.models as models\n"
        "engine = sqlalchemy.create_engine('sqlite://')\n"
        "models.Base.metadata.create_all(engine)\n"
        "factory = sqlalchemy.orm.sessionmaker(engine)\n"
        "assert ledger_sync.LedgerSync().backfill(factory, tenant_id='acme').clean"
    )
    assert "ledger_sync.runs" in imported_by(use)
