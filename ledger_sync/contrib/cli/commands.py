"""What every command needs, and the commands that write: each opens the database and calls the public face."""

from __future__ import annotations

import getpass
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from sqlalchemy import Engine, exists, false, inspect, select
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ALL_TENANTS, LedgerSync, LedgerSyncError, Settings
from ledger_sync.contrib.cli import demo as demo_company
from ledger_sync.contrib.cli import show
from ledger_sync.contrib.cli.queueing import DEFAULT_BROKER, Broker, Queue, queue_of
from ledger_sync.contrib.cli.review import read_review, write_review
from ledger_sync.dialects import masked, open_engine
from ledger_sync.errors import ConfigurationError, UnknownTenantError
from ledger_sync.models import Base, JournalEntry
from ledger_sync.plain import indented

DEFAULT_DB = "sqlite:///ledger_sync.db"
DEMO_DB = "sqlite:///ledger_sync_demo.db"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Keeps subledgers true to the general ledger, and proves it to the last øre.",
)

Db = Annotated[
    str, typer.Option("--db", envvar="LEDGER_SYNC_DATABASE_URL", help="Database URL, as SQLAlchemy writes it.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Whose books; needed where there are several.")]
Everybody = Annotated[bool, typer.Option("--all-tenants", help="Everybody's books.")]
Accounts = Annotated[
    list[str] | None,
    typer.Option(
        "--account",
        help="A control account as LEDGER=ACCOUNTS: supplier=2440, customer=1500-1509. "
        "Once for each; instead of 2400, 1500 and 2910.",
    ),
]


INTERRUPTED = 130
"""What typer makes of an interrupt."""
STOPPED = "Stopped. What had been committed stays; run the same command again to go on."


def user_name() -> str:
    """Who runs the command; by number where the system knows no name for it, in a container, say."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def run() -> int:  # noqa: PLR0911 - one return for each kind of failure
    """Run the command line and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter shows its code
    try:
        result = app(standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except LedgerSyncError as error:
        return _fail(str(error))
    except (ArgumentError, NoSuchModuleError) as error:
        return _fail(f"The database URL cannot be used: {error}")
    except DBAPIError as error:
        return _fail(f"The database refused: {error.orig}")
    except SQLAlchemyError as error:
        return _fail(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        return _fail(STOPPED)
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is not installed, which the database needs, or the command. Install it with pip.")
    except OSError as error:
        return _fail(str(error))
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's own: wrong usage
            error.show()
            return 2
        raise
    return _fail(STOPPED) if result == INTERRUPTED else int(result or 0)


def _fail(message: str) -> int:
    sys.stderr.write(f"ledger-sync: {indented(message)}\n")
    return 2


@contextmanager
def books(db: str, *, make: Callable[[Engine], object] | None = None) -> Iterator[tuple[Engine, sessionmaker[Session]]]:
    """The database, with its tables found, or made by ``make``."""
    engine = open_engine(db)
    try:
        if make is not None:
            make(engine)
        elif not inspect(engine).has_table(JournalEntry.__tablename__):
            raise ConfigurationError(f"There are no books at {masked(db)}. Run `ledger-sync init --db …` first.")
        yield engine, sessionmaker(engine)
    finally:
        engine.dispose()


def settings_of(accounts: list[str] | None) -> Settings:
    if not accounts:
        return Settings()
    controls: dict[str, list[str]] = {}
    for account in accounts:
        ledger, equals, numbers = account.partition("=")
        if not equals or ledger not in {"supplier", "customer", "employee"}:
            raise ConfigurationError(
                f"--account {account} should read LEDGER=ACCOUNTS, with supplier, customer or employee before the ="
            )
        controls.setdefault(ledger, []).extend(number.strip() for number in numbers.split(","))
    return Settings(
        control_accounts=tuple({"accounts": tuple(numbers), "ledger": ledger} for ledger, numbers in controls.items()),
    )


def tenants_of(sync: LedgerSync, session: Session, tenant: str | None, *, everybody: bool) -> list[str]:
    """The one tenant of the books, the one that was named, or all of them.

    :raises UnknownTenantError: none was named and there are several, or the one that was has no entries.
    """
    if tenant is not None:
        if everybody:
            raise ConfigurationError(f"--tenant {tenant} is not --all-tenants. Give one of the two.")
        if not sync.tenants(session, tenant):
            raise UnknownTenantError((), tenant)
        return [tenant]
    found = list(sync.tenants(session, ALL_TENANTS))
    if everybody or len(found) == 1:
        return found
    raise UnknownTenantError(found)


def one_tenant_of(sync: LedgerSync, session: Session, tenant: str | None) -> str:
    """The one tenant of the books, or the one that was named. Errors as of ``tenants_of``."""
    (name,) = tenants_of(sync, session, tenant, everybody=False)
    return name


@app.command()
def init(db: Db = DEFAULT_DB, as_json: Json = False) -> int:
    """Make the tables in a database. Harmless where they exist."""
    with books(db, make=Base.metadata.create_all):
        show.Output(as_json).say(f"The tables are in {show.plain(masked(db))}.")
    return 0


@app.command()
def demo(db: Annotated[str, typer.Option("--db", help="An empty database.")] = DEMO_DB, as_json: Json = False) -> int:
    """Make a small fictional company, and show what is written, what is skipped, and the proof."""
    output = show.Output(as_json)
    with books(db, make=_made_anew) as (_, factory):
        demo_company.run(factory, LedgerSync(), output)
        output.say(
            f"\nThe books are in {show.plain(masked(db))}. Ask again: ledger-sync verify --db {show.plain(masked(db))}"
        )
    return 0


def _made_anew(engine: Engine) -> None:
    """Make the tables, in place of a demo's.

    :raises ConfigurationError: one of them holds somebody else's rows, or is another program's table of that name.
    """
    there = inspect(engine)
    with engine.connect() as connection:
        for table in Base.metadata.tables.values():
            if not there.has_table(table.name):
                continue
            ours = {column["name"] for column in there.get_columns(table.name)} >= set(table.c.keys())
            others = exists().where(table.c.tenant_id != demo_company.TENANT) if "tenant_id" in table.c else false()
            if not ours or connection.scalar(select(others)):
                raise ConfigurationError(
                    f"{masked(engine.url)} holds somebody's books, in table {table.name}. "
                    "Give the demo an empty database."
                )
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)


@app.command("import-saft")
def import_saft(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A SAF-T Financial file, 1.10 to 1.30.")],
    db: Db = DEFAULT_DB,
    contra_account: Annotated[
        str | None, typer.Option("--contra-account", help="Takes what the opening balances do not balance by.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="The company whose file it must be; any, unless given.")
    ] = None,
    account: Accounts = None,
    as_json: Json = False,
) -> int:
    """Read a Norwegian SAF-T Financial file into the books. All of it, or nothing."""
    from ledger_sync.contrib.saft import SaftProgress
    from ledger_sync.contrib.saft import import_saft as read

    output = show.Output(as_json)
    with books(db, make=Base.metadata.create_all) as (_, factory):
        with Progress(
            TextColumn("{task.description:<18}"), BarColumn(), DownloadColumn(), console=output.console, disable=as_json
        ) as bar:
            task = bar.add_task("reading")

            def follow(progress: SaftProgress) -> None:
                bar.update(task, completed=progress.bytes_read, total=progress.bytes_total)

            report = read(
                factory,
                file,
                settings=settings_of(account),
                contra_account=contra_account,
                tenant_id=tenant,
                on_progress=follow,
            )
        output.document([report])
        for warning in report.warnings:
            output.say(f"[yellow]Warning:[/yellow] {show.plain(warning)}")
        output.say(
            f"{show.plain(report.company_name)} ({show.plain(report.tenant_id)}), "
            f"{report.period_start} to {report.period_end}: "
            f"{report.entries:,} entries with {report.lines:,} lines, {report.documents:,} documents, "
            f"{report.customers:,} customers and {report.suppliers:,} suppliers are new; "
            f"{report.entries_existing:,} entries were there; openings {report.opening}."
        )
    return 0


@app.command()
def repair(
    db: Db = DEFAULT_DB,
    tenant: Tenant = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what is wrong, write nothing.")] = False,
    account: Accounts = None,
    as_json: Json = False,
) -> int:
    """Write what is missing, correct what differs, take away orphans. Status 1 when the proof after it is not clean."""
    output = show.Output(as_json)
    sync = LedgerSync(settings_of(account))
    with books(db) as (_, factory):
        with factory() as session:
            name = one_tenant_of(sync, session, tenant)
        with output.progress() as follow:
            report = sync.repair(factory, tenant_id=name, dry_run=dry_run, on_progress=follow)
        output.document([report])
        show.repair_report(output, report)
    return 0 if report.clean else 1


@app.command()
def match(
    db: Db = DEFAULT_DB,
    tenant: Tenant = None,
    apply: Annotated[bool, typer.Option("--apply", help="Link the certain matches.")] = False,
    review: Annotated[
        Path | None,
        typer.Option(
            "--review", help="Write the proposals to this CSV file; with --apply, link what it has marked with yes."
        ),
    ] = None,
    actor: Annotated[str, typer.Option("--actor", help="Who makes the links.")] = "ledger-sync match",
    account: Accounts = None,
    as_json: Json = False,
) -> int:
    """Propose documents for control lines without a source; link them only when asked to."""
    output = show.Output(as_json)
    sync = LedgerSync(settings_of(account))
    with books(db) as (_, factory), factory() as session:
        name = one_tenant_of(sync, session, tenant)
        found = sync.match(session, name)
        output.document([found])
        show.matches(output, found)
        if review is not None and not apply:
            write_review(review, found)
            output.say(
                f"The proposals are in {show.plain(review)}. Mark what is right with yes, then: "
                "match --review FILE --apply"
            )
        if apply:
            chosen = read_review(review, found) if review is not None else [(p, p.candidates[0]) for p in found.certain]
            for proposal, candidate in chosen:
                sync.link(
                    session,
                    name,
                    proposal.general_ledger_line_id,
                    candidate.document,
                    candidate.document_id,
                    actor=actor,
                    reason=f"{'reviewed' if review is not None else 'certain'}: {', '.join(candidate.evidence)}",
                    method="match",
                )
            session.commit()
            output.say(f"{len(chosen):,} lines are linked, and settle what they pay.")
    return 0


@app.command()
def serve(
    db: Db = DEFAULT_DB,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only these books; all unless given.")] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="On 127.0.0.1; 0 for any free one.")] = 8321,
    queue: Queue = None,
    broker: Broker = DEFAULT_BROKER,
    account: Accounts = None,
    as_json: Json = False,
) -> int:
    """Serve the console and its API on this machine alone (extra web), until Ctrl-C.

    The token is LEDGER_SYNC_TOKEN, or is made and shown at the start.
    """
    try:
        from ledger_sync.contrib.web import alone
    except ImportError as error:
        if error.name not in {"starlette", "socketio", "uvicorn"}:
            raise
        raise ConfigurationError(f"serve needs {error.name}: pip install 'ledger-sync[cli,web]'") from None
    given = alone.token_of_environment()
    token = given or alone.new_token()

    def say(address: str) -> None:
        output = show.Output(as_json)
        if as_json:
            output.document([alone.Listening(address=address, token=None if given else token)])
            sys.stdout.flush()
        output.say(f"The console is at {address} until Ctrl-C.")
        output.say("Its token is LEDGER_SYNC_TOKEN." if given else f"Its token, for this time: {token}")

    sync = LedgerSync(settings_of(account))
    with books(db) as (_, factory), ExitStack() as stack:
        workers = None
        if queue is not None:
            workers = stack.enter_context(queue_of(queue, db, broker, sync, factory)).queue
        console = alone.app_alone(sync, factory, token, user_name(), tenant=tenant, queue=workers)
        with suppress(KeyboardInterrupt):  # which is how it ends
            alone.serve(console, port, say)
    return 0
