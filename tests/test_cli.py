"""The command line: what a person types, what comes back, and with which status."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import typer
from sqlalchemy import Engine, delete, func, select
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.contrib.cli import commands, running
from ledger_sync.contrib.cli.show import Output
from ledger_sync.contrib.web import alone
from ledger_sync.dialects import open_engine
from ledger_sync.errors import ConfigurationError
from ledger_sync.models import Base, SupplierLedger, SyncRun
from tests.benchmarks.books_at_scale import make
from tests.conftest import shared_file

SECONDS_MAX = 240
"""A command that takes longer hangs."""

COMMAND = [sys.executable, "-W", "error", "-c", "from ledger_sync.contrib.cli import main; main()"]


def ledger_sync(*arguments: str, cwd: Path, columns: int = 120) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    environment = {**os.environ, "COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"}
    environment.pop("LEDGER_SYNC_DATABASE_URL", None)
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=SECONDS_MAX,
    )


def test_demo_shows_the_rows_the_skipped_entry_and_a_difference_with_its_cause(tmp_path: Path) -> None:
    run = ledger_sync("demo", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "ehf_invoice" in run.stdout
    assert "reason manual" in run.stdout
    assert "30,900.00" in run.stdout
    assert "31,250.00" in run.stdout
    assert (tmp_path / "ledger_sync_demo.db").exists()


def test_demo_runs_again_on_its_own_file_but_never_on_somebodys_books(tmp_path: Path) -> None:
    assert ledger_sync("demo", cwd=tmp_path).returncode == 0
    assert ledger_sync("demo", cwd=tmp_path).returncode == 0
    shared = shared_file("saft/toyen_lekefabrikk_2017.xml")
    books = "sqlite:///books.db"
    ledger_sync("import-saft", str(shared), "--db", books, "--contra-account", "2050", cwd=tmp_path)
    refused = ledger_sync("demo", "--db", books, cwd=tmp_path)
    assert refused.returncode == 2
    assert "somebody's books" in refused.stderr


DEMO = ("--db", "sqlite:///ledger_sync_demo.db")


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT)",
        "CREATE TABLE vendors (id INTEGER PRIMARY KEY, tenant_id TEXT, number TEXT, name TEXT); "
        "INSERT INTO vendors VALUES (1, 'acme', '1', 'Acme')",
    ],
)
def test_the_demo_never_drops_another_programs_table(tmp_path: Path, made: str) -> None:
    with closing(sqlite3.connect(tmp_path / "erp.db")) as connection:
        connection.executescript(made)
        connection.commit()
        before = list(connection.iterdump())
    refused = ledger_sync("demo", "--db", "sqlite:///erp.db", cwd=tmp_path)
    assert (refused.returncode, "somebody's books, in table" in refused.stderr) == (2, True)
    with closing(sqlite3.connect(tmp_path / "erp.db")) as connection:
        assert list(connection.iterdump()) == before


def test_the_demo_takes_empty_tables(tmp_path: Path) -> None:
    assert ledger_sync("init", "--db", DEMO[1], cwd=tmp_path).returncode == 0
    assert ledger_sync("demo", cwd=tmp_path).returncode == 0


def test_demo_as_json_is_one_proof(tmp_path: Path) -> None:
    proof = json.loads(ledger_sync("demo", "--json", cwd=tmp_path).stdout)
    supplier = next(account for account in proof["accounts"] if account["account_number"] == "2400")
    assert supplier["difference"] == "-350.00"
    assert [cause["name"] for cause in supplier["causes"]] == ["manual"]


def test_verify_ends_with_one_when_a_row_is_missing_and_backfill_mends_it(tmp_path: Path) -> None:
    ledger_sync("demo", cwd=tmp_path)
    db = "sqlite:///ledger_sync_demo.db"
    engine: Engine = open_engine(f"sqlite:///{tmp_path / 'ledger_sync_demo.db'}")
    with engine.begin() as connection:
        connection.execute(delete(SupplierLedger.__table__))
    engine.dispose()
    found = ledger_sync("verify", "--db", db, cwd=tmp_path)
    assert found.returncode == 1
    assert "missing" in found.stdout
    assert ledger_sync("backfill", "--db", db, cwd=tmp_path).returncode == 0
    assert ledger_sync("verify", "--db", db, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("command", ["verify", "backfill", "runs", "repair"])
def test_a_tenant_that_is_not_there_is_no_clean_set_of_books(demo: Path, command: str) -> None:
    unknown = ledger_sync(command, *DEMO, "--tenant", "fjord-bakery", cwd=demo)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "no journal entries of tenant fjord-bakery" in unknown.stderr


@pytest.mark.parametrize("command", ["verify", "backfill", "runs"])
def test_one_tenant_and_all_of_them_are_not_asked_for_together(demo: Path, command: str) -> None:
    both = ledger_sync(command, *DEMO, "--tenant", "fjord-bakeri", "--all-tenants", cwd=demo)
    assert (both.returncode, both.stdout) == (2, "")
    assert "Give one of the two" in both.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "--db", "sqlite:///nothing.db"], "ledger-sync init"),
        (["verify", "--db", "nonsense"], "database URL"),
        (["backfill", "--db", "sqlite:///nothing.db"], "ledger-sync init"),
        (["frobnicate"], "No such command"),
        (["verify", "--as-of", "yesterday"], "yesterday"),
        (["verify", "--account", "bank=1920"], "LEDGER=ACCOUNTS"),
        (["verify", "--account", "supplier="], "account number '' is empty or has blanks around it\n"),
        (["import-saft", "missing.xml"], "missing.xml"),
    ],
)
def test_wrong_usage_ends_with_two_and_says_what_to_do(tmp_path: Path, arguments: list[str], said: str) -> None:
    run = ledger_sync(*arguments, cwd=tmp_path)
    assert run.returncode == 2
    assert said in run.stderr + run.stdout
    assert "Traceback" not in run.stderr


def test_books_without_entries_are_named_as_empty(tmp_path: Path) -> None:
    assert ledger_sync("init", "--db", "sqlite:///empty.db", cwd=tmp_path).returncode == 0
    run = ledger_sync("verify", "--db", "sqlite:///empty.db", cwd=tmp_path)
    assert run.returncode == 2
    assert "no journal entries yet" in run.stderr


def test_a_password_in_the_database_url_is_never_shown(tmp_path: Path) -> None:
    run = ledger_sync("verify", "--db", "postgresql+psycopg://me:hunter2@127.0.0.1:1/x", cwd=tmp_path)
    assert run.returncode == 2
    assert "hunter2" not in run.stderr + run.stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("not_xml.xml", b"voucher;amount\n1;100\n"),
        ("bomb.xml", b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><a>&b;</a>'),
        ("external.xml", b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>'),
        (
            "truncated.xml",
            b'<?xml version="1.0"?><n1:AuditFile xmlns:n1="urn:StandardAuditFile-Taxation-Financial:NO">',
        ),
    ],
)
def test_a_file_that_cannot_be_imported_ends_with_two_and_leaves_nothing(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    run = ledger_sync("import-saft", name, "--db", "sqlite:///books.db", cwd=tmp_path)
    assert run.returncode == 2, run.stdout
    assert "Traceback" not in run.stderr
    assert "no journal entries yet" in ledger_sync("verify", "--db", "sqlite:///books.db", cwd=tmp_path).stderr


def test_open_items_lists_what_is_open_and_adds_up_to_the_subledger(tmp_path: Path) -> None:
    ledger_sync("demo", cwd=tmp_path)
    db = "sqlite:///ledger_sync_demo.db"
    shown = ledger_sync("open-items", "--db", db, cwd=tmp_path)
    assert shown.returncode == 0
    assert "supplier_ledger: 31,250.00 open" in shown.stdout
    earlier = json.loads(ledger_sync("open-items", "--db", db, "--json", "--as-of", "2025-12-31", cwd=tmp_path).stdout)
    assert sorted(item["invoice_number"] for item in earlier) == ["1001", "8801"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's books, which the tests that use it only read."""
    folder = tmp_path_factory.mktemp("demo")
    assert ledger_sync("demo", cwd=folder).returncode == 0
    return folder


def test_repair_shows_what_it_would_do_then_does_it(tmp_path: Path) -> None:
    ledger_sync("demo", cwd=tmp_path)
    engine: Engine = open_engine(f"sqlite:///{tmp_path / 'ledger_sync_demo.db'}")
    with engine.begin() as connection:
        connection.execute(delete(SupplierLedger.__table__))
    engine.dispose()
    dry = ledger_sync("repair", *DEMO, "--dry-run", cwd=tmp_path)
    assert dry.returncode == 1
    assert "2 missing" in dry.stdout
    assert ledger_sync("verify", *DEMO, cwd=tmp_path).returncode == 1
    done = ledger_sync("repair", *DEMO, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "The proof after it is clean" in done.stdout
    assert ledger_sync("verify", *DEMO, cwd=tmp_path).returncode == 0


def test_explain_answers_why_nothing_was_created(demo: Path) -> None:
    skipped = ledger_sync("explain", "5", *DEMO, cwd=demo)
    assert skipped.returncode == 0
    assert "No ledger entry was created for it: posted without a source." in skipped.stdout
    assert "Neither the entry nor a link of the line names a source." in skipped.stdout
    written = json.loads(ledger_sync("explain", "vendor_invoice:8907", *DEMO, "--json", cwd=demo).stdout)
    outcomes = {line["account_number"]: line["outcome"] for line in written["entries"][0]["lines"]}
    assert outcomes == {"4300": "no_control_account", "2710": "no_control_account", "2400": "written"}


def test_explain_of_what_is_not_there_ends_with_two(demo: Path) -> None:
    run = ledger_sync("explain", "4711", *DEMO, cwd=demo)
    assert (run.returncode, run.stdout) == (2, "")
    assert "voucher 4711 is not in the books" in run.stderr


def test_ageing_adds_up_by_how_long_it_is_overdue(demo: Path) -> None:
    shown = ledger_sync("ageing", *DEMO, "--as-of", "2026-02-11", "--ledger", "supplier", cwd=demo)
    assert shown.returncode == 0
    row = next(line for line in shown.stdout.splitlines() if line.startswith("│ all"))
    amounts = [cell.strip() for cell in row.strip("│").split("│")][1:]
    assert amounts == ["18,750.00", "0.00", "12,500.00", "0.00", "0.00", "0.00", "31,250.00"]
    refused = ledger_sync("ageing", *DEMO, "--buckets", "30;60", cwd=demo)
    assert refused.returncode == 2
    assert "30;60" in refused.stderr


def test_specification_has_opening_movements_and_closing(demo: Path) -> None:
    shown = ledger_sync("specification", "supplier", *DEMO, "--since", "2026-01-01", "--json", cwd=demo)
    (mill,) = json.loads(shown.stdout)["parties"]
    assert (mill["opening"], mill["closing"]) == ("12500.00", "31250.00")
    assert [movement["amount"] for movement in mill["movements"]] == ["18750.00"]
    table = ledger_sync("specification", "supplier", *DEMO, "--party", "20001", cwd=demo).stdout
    assert "closing 31,250.00" in table
    assert ledger_sync("specification", "bank", *DEMO, cwd=demo).returncode == 2


def test_verify_writes_a_page_and_shows_what_was_posted_lately(demo: Path, tmp_path: Path) -> None:
    page = tmp_path / "proof.html"
    run = ledger_sync("verify", *DEMO, "--html", str(page), "--locale", "en", "--recent", "2w", cwd=demo)
    assert run.returncode == 0, run.stderr
    assert "Posted since" in run.stdout
    assert "row written" in run.stdout
    assert "30,900.00" in page.read_text(encoding="utf-8")
    refused = ledger_sync("verify", *DEMO, "--html", str(page), "--locale", "xx", cwd=demo)
    assert (refused.returncode, "'xx'" in refused.stderr) == (2, True)
    nowhere = ledger_sync("verify", *DEMO, "--html", str(tmp_path / "no" / "proof.html"), cwd=demo)
    assert nowhere.returncode == 2
    assert "Traceback" not in nowhere.stderr
    assert ledger_sync("verify", *DEMO, "--recent", "soon", cwd=demo).returncode == 2


def test_match_proposes_and_links_only_when_asked(tmp_path: Path) -> None:
    ledger_sync("demo", cwd=tmp_path)
    engine: Engine = open_engine(f"sqlite:///{tmp_path / 'ledger_sync_demo.db'}")
    with engine.begin() as connection:
        connection.execute(delete(SupplierLedger.__table__))
        connection.exec_driver_sql("UPDATE general_ledger SET source_type = NULL, source_id = NULL")
        connection.exec_driver_sql("UPDATE general_ledger_lines SET reference = '8907' WHERE credit = 1875000")
    engine.dispose()
    proposed = json.loads(ledger_sync("match", *DEMO, "--json", cwd=tmp_path).stdout)
    assert [proposal["certain"] for proposal in proposed["proposals"]] == [True]
    written = ledger_sync("match", *DEMO, "--review", "review.csv", cwd=tmp_path)
    assert "1 certain, 0 ambiguous" in written.stdout
    assert (tmp_path / "review.csv").read_text(encoding="utf-8-sig").count("\n") == 2
    linked = ledger_sync("match", *DEMO, "--review", "review.csv", "--apply", cwd=tmp_path)
    assert "1 lines are linked" in linked.stdout, linked.stderr
    explained = json.loads(ledger_sync("explain", "3", *DEMO, "--json", cwd=tmp_path).stdout)
    assert explained["entries"][0]["lines"][2]["outcome"] == "written"
    assert ledger_sync("match", *DEMO, "--review", "nowhere.csv", "--apply", cwd=tmp_path).returncode == 2


def test_runs_are_listed_with_who_began_them_and_how_they_ended(tmp_path: Path) -> None:
    ledger_sync("demo", cwd=tmp_path)
    db = "sqlite:///ledger_sync_demo.db"
    assert ledger_sync("backfill", "--db", db, "--actor", "kari", cwd=tmp_path).returncode == 0
    listed = ledger_sync("runs", "--db", db, cwd=tmp_path, columns=160)
    assert listed.returncode == 0, listed.stderr
    assert "kari" in listed.stdout
    assert "completed" in listed.stdout
    (run,) = [run for run in json.loads(ledger_sync("runs", "--db", db, "--json", cwd=tmp_path).stdout) if run["actor"]]
    assert (run["kind"], run["state"], run["clean"]) == ("backfill", "completed", True)
    refused = ledger_sync("runs", "--cancel", str(run["run_id"]), "--db", db, cwd=tmp_path)
    assert refused.returncode == 2
    assert "is completed" in refused.stderr
    unknown = ledger_sync("runs", "--resume", "4711", "--db", db, cwd=tmp_path)
    assert unknown.returncode == 2
    assert "Run 4711 does not exist" in unknown.stderr


def test_an_interrupted_backfill_says_how_to_go_on_and_goes_on(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'big.db'}")
    lines = make(engine, 60_000)
    db = "sqlite:///big.db"
    environment = {**os.environ, "COLUMNS": "120", "PYTHONIOENCODING": "utf-8"}
    # a shell's background jobs, and all that they start, ignore interrupts unless they say otherwise
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [*COMMAND[:-1], heeding + COMMAND[-1], "backfill", "--db", db]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        processed = 0
        while not processed and run.poll() is None:
            time.sleep(0.1)  # a reader who never rests keeps the writer out
            with engine.connect() as connection:
                processed = connection.scalar(select(func.max(SyncRun.processed))) or 0
        run.send_signal(signal.SIGINT)
        _, said = run.communicate()
    assert run.returncode == 2
    assert b"Run 1 is paused" in said
    assert b"ledger-sync runs --resume 1 --db sqlite:///big.db" in said
    with engine.connect() as connection:
        assert connection.scalar(select(SyncRun.state)) == "paused"
    resumed = ledger_sync("runs", "--resume", "1", "--db", db, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{lines:,}/{lines:,} lines" in resumed.stdout
    assert "The books are clean." in resumed.stdout
    engine.dispose()


@pytest.mark.parametrize("cancelled", [True, False])
def test_who_interrupts_a_run_is_told_how_it_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, cancelled: bool
) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'books.db'}")
    Base.metadata.create_all(engine)
    sync, factory = LedgerSync(), sessionmaker(engine)
    run_id = sync.start(factory, tenant_id="acme")
    with factory.begin() as session:
        (sync.cancel if cancelled else sync.pause)(session, run_id)
    snapshot = sync.advance(factory, run_id)

    def interrupted() -> None:
        with running._followed(Output(as_json=True), "sqlite:///books.db", sync, factory) as follow:
            follow(snapshot)
            raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as left:
        interrupted()
    assert left.value.exit_code == 2
    told = capsys.readouterr().err
    assert f"Run {run_id} {'was cancelled' if cancelled else 'is paused'}; what it had written stays." in told
    assert ("--resume" in told) != cancelled
    engine.dispose()


def test_a_backfill_of_single_vouchers_and_of_source_types(tmp_path: Path) -> None:
    ledger_sync("demo", cwd=tmp_path)
    db = "sqlite:///ledger_sync_demo.db"
    unknown = ledger_sync("backfill", "--db", db, "--voucher", "4711", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "voucher 4711 is not in the books" in unknown.stderr
    wrong = ledger_sync("backfill", "--db", db, "--source-type", "payroll", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "no source type 'payroll'" in wrong.stderr
    report = json.loads(
        ledger_sync("backfill", "--db", db, "--source-type", "ehf_invoice", "--json", cwd=tmp_path).stdout
    )
    assert report["state"] == "completed"


def test_what_cannot_be_done_ends_with_status_2_and_without_a_traceback(tmp_path: Path) -> None:
    ledger_sync("demo", cwd=tmp_path)
    db = "sqlite:///ledger_sync_demo.db"
    for arguments, said in (
        (("runs", "--db", db, "--resume", "9" * 20), "9223372036854775807"),
        (("runs", "--db", db, "--limit", "9" * 20), "100000"),
        (("runs", "--db", db, "--resume", "1", "--pause", "1"), "Give one of them"),
        (("verify", "--db", "mysql+nosuchdriver://localhost/books"), "nosuchdriver"),
    ):
        refused = ledger_sync(*arguments, cwd=tmp_path)
        assert refused.returncode == 2, (arguments, refused)
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_terminal_that_lacks_a_letter_shows_its_code(tmp_path: Path) -> None:
    ledger_sync("demo", cwd=tmp_path)
    environment = {**os.environ, "COLUMNS": "120", "PYTHONIOENCODING": "ascii"}
    command = [*COMMAND, "open-items", "--db", "sqlite:///ledger_sync_demo.db", "--json"]
    shown = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=SECONDS_MAX
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.isascii()


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_who_has_no_name_is_known_by_number(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def nobody() -> str:
        raise error("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert commands.user_name() == str(os.getuid())


@pytest.mark.parametrize(("given", "kept"), [("t" * 24 + "\r\n", "t" * 24), (" " + "s" * 24, "s" * 24)])
def test_what_surrounds_the_token_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch, given: str, kept: str) -> None:
    monkeypatch.setenv("LEDGER_SYNC_TOKEN", given)
    assert alone.token_of_environment() == kept
    monkeypatch.setenv("LEDGER_SYNC_TOKEN", "\u00f8" * 30)
    with pytest.raises(ConfigurationError, match="that no header can hold"):
        alone.token_of_environment()


def test_an_interrupted_command_says_that_it_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "open_engine", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
    monkeypatch.setattr("sys.argv", ["ledger-sync", "init", "--db", "sqlite://"])
    assert commands.run() == 2
    assert "Stopped. What had been committed stays" in capsys.readouterr().err
