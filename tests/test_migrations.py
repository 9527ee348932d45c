"""The recipe for Alembic runs as it stands on its page: up, down, and with nothing left to do in between."""

from __future__ import annotations

import re
import warnings
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.models import Base

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "how-to" / "migrations.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
FILES = {found[1]: block for block in BLOCKS if (found := re.match(r"# (migrations/\S+)\n", block))}
HOSTS_OWN = {"suppliers", "bills", "vouchers", "postings", "alembic_version"}

SCRIPT = '''
"""${message}"""
import sqlalchemy as sa
from alembic import op
import ledger_sync
revision, down_revision = ${repr(up_revision)}, ${repr(down_revision)}
def upgrade():
    ${upgrades}
def downgrade():
    ${downgrades}
'''

BOOKS = '''
"""What the host has had for years."""
from alembic import op
from your_models import Base

revision, down_revision = "0001", None
TABLES = [Base.metadata.tables[name] for name in ("suppliers", "bills", "vouchers", "postings")]

def upgrade():
    Base.metadata.create_all(op.get_bind(), tables=TABLES)

def downgrade():
    Base.metadata.drop_all(op.get_bind(), tables=TABLES)
'''

# hosts keep amounts in Numeric, of which SQLite has none
pytestmark = pytest.mark.filterwarnings("ignore:Dialect sqlite.* does .not. support Decimal")


class Host:
    """``examples/your_models.py`` with a folder of migrations, and a database."""

    def __init__(self, engine: Engine, folder: Path, models: Any) -> None:
        self.engine, self.folder, self.models = engine, folder, models
        self.sync: LedgerSync = models.sync
        self.config = Config()
        self.config.set_main_option("script_location", str(folder / "migrations"))
        self.config.set_main_option("sqlalchemy.url", _url(engine).replace("%", "%%"))
        self.write("migrations/versions/0001_books.py", BOOKS)
        self.write("migrations/script.py.mako", SCRIPT)
        for name, content in FILES.items():
            self.write(name, content)

    def write(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.lstrip(), encoding="utf-8")

    def upgrade(self, to: str) -> None:
        command.upgrade(self.config, to)

    def downgrade(self, to: str) -> None:
        command.downgrade(self.config, to)

    def tables(self) -> set[str]:
        return set(inspect(self.engine).get_table_names())

    def post(self, session: Session, number: str) -> None:
        """A bill and its voucher, as the host has always posted them."""
        models = self.models
        supplier = models.Supplier(number=number, name="Mølleren AS")
        session.add(supplier)
        session.flush()
        bill = models.Bill(supplier_id=supplier.id, number=number, billed_on=date(2026, 1, 12), amount=Decimal(1250))
        session.add(bill)
        session.flush()
        voucher = models.Voucher(
            number=number, booked_on=date(2026, 1, 12), state="final", origin="BILL", origin_id=bill.id
        )
        voucher.postings = [
            models.Posting(account="6300", amount=Decimal(1250)),
            models.Posting(account="4410", amount=Decimal(-1250)),
        ]
        session.add(voucher)


def _url(engine: Engine) -> str:
    url = engine.url
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            schema = connection.scalar(text("SELECT current_schema()"))
        url = url.update_query_dict({"options": f"-csearch_path={schema}"})
    return url.render_as_string(hide_password=False)


@pytest.fixture
def host(empty_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.syspath_prepend(ROOT / "examples")
    import your_models

    return Host(empty_engine, tmp_path, your_models)


def differences(engine: Engine, metadata: Any, **options: Any) -> list[Any]:
    """What autogeneration would write a revision for."""
    with engine.connect() as connection, warnings.catch_warnings():
        # indexes on expressions are not compared on SQLite, and both say so
        warnings.filterwarnings("ignore", ".*expression-based index")
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def leaves_room(engine: Engine) -> bool:
    """Whether PostgreSQL has been told to leave half of the open items' pages free; others need not be told."""
    if engine.dialect.name != "postgresql":
        return True
    query = text("SELECT reloptions FROM pg_class WHERE oid = CAST('supplier_ledger' AS regclass)")
    with engine.connect() as connection:
        return "fillfactor=50" in connection.scalars(query).one()


def test_up_and_down_with_rows_of_the_hosts_and_nothing_left_to_do(host: Host) -> None:
    host.upgrade("0001")
    factory = sessionmaker(host.engine)
    with factory.begin() as session:
        host.post(session, "1")  # history
    host.upgrade("head")
    assert host.sync.check_schema(host.engine) == ()
    assert differences(host.engine, host.models.Base.metadata) == []
    assert leaves_room(host.engine)

    host.sync.attach(factory)
    try:
        with factory.begin() as session:
            host.post(session, "2")
    finally:
        host.sync.detach(factory)
    assert host.sync.backfill(factory).clean
    with factory() as session:
        assert [item.invoice_number for item in host.sync.open_items(session)] == ["1", "2"]

    host.downgrade("0001")
    assert host.tables() == HOSTS_OWN
    with factory() as session:
        assert sorted(session.scalars(text("SELECT number FROM vouchers"))) == ["1", "2"]
        assert session.scalar(text("SELECT count(*) FROM postings")) == 4
    host.upgrade("head")
    assert host.sync.check_schema(host.engine) == ()


def test_a_later_revision_adds_what_an_older_database_lacks(host: Host) -> None:
    host.upgrade("0002")
    with host.engine.begin() as connection:
        connection.execute(text("ALTER TABLE ledger_sync_runs DROP COLUMN note"))
    (lacking,) = host.sync.check_schema(host.engine)
    assert lacking.problem == "column note is not there"
    host.upgrade("head")
    assert host.sync.check_schema(host.engine) == ()
    assert differences(host.engine, host.models.Base.metadata) == []


def test_the_script_that_autogeneration_writes_will_do_as_well(host: Host) -> None:
    for name in FILES.keys() - {"migrations/env.py"}:
        (host.folder / name).unlink()
    host.upgrade("0001")
    command.revision(host.config, "open items", autogenerate=True, rev_id="0002")
    (script,) = (host.folder / "migrations" / "versions").glob("0002*.py")
    written = script.read_text(encoding="utf-8")
    assert "Money(decimals=3)" in written  # the amounts in a foreign currency
    if host.engine.dialect.name == "postgresql":
        (addition,) = re.findall(r"`(op\.execute\(.*?\))`", PAGE.read_text(encoding="utf-8"))
        script.write_text(written.replace("\ndef downgrade", f"\n    {addition}\ndef downgrade"), encoding="utf-8")
    host.upgrade("head")
    assert host.sync.check_schema(host.engine) == ()
    assert differences(host.engine, host.models.Base.metadata) == []
    assert leaves_room(host.engine)
    factory = sessionmaker(host.engine)
    with factory.begin() as session:
        host.post(session, "1")
    assert host.sync.backfill(factory).clean
    host.downgrade("0001")
    assert host.tables() == HOSTS_OWN


def test_on_the_ready_made_models_nothing_is_left_to_do(empty_engine: Engine) -> None:
    names: dict[str, Any] = {}
    exec(next(block for block in BLOCKS if block.startswith("def include_object")), names)
    with empty_engine.begin() as connection:
        Base.metadata.create_all(connection)
    assert differences(empty_engine, Base.metadata, include_object=names["include_object"]) == []
    assert LedgerSync().check_schema(empty_engine) == ()
