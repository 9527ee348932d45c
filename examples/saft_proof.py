"""A company's SAF-T file is loaded, its open items are written from history, and the proof is printed.

Run it with `python examples/saft_proof.py [saft-file]`; it keeps the books in memory. Without a file it takes
`saft_proof.xml` beside it, of a company that does not exist, and prints what is in `saft_proof.txt`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync, Proof
from ledger_sync.contrib.saft import import_saft
from ledger_sync.dialects import open_engine
from ledger_sync.models import Base


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def show(proof: Proof) -> None:
    """Each control account beside its subledger, and what they differ by."""
    for account in proof.accounts:
        say(
            f"{account.account_number} {account.ledger:8} GL {account.gl_balance:>12,.2f} "
            f"subledger {account.subledger_balance:>12,.2f} difference {account.difference:>10,.2f}"
        )
        for cause in account.causes:
            say(f"  {cause.amount:>10,.2f} {cause.name} ({cause.count}): {cause.meaning}")
            for example in cause.examples:
                say(f"  {example.amount:>12,.2f} voucher {example.voucher} of {example.entry_date}")
    for finding in proof.findings:
        say(f"finding {finding.name} ({finding.count}): {finding.meaning}")
    say("clean" if proof.clean else "NOT CLEAN")


def main(path: Path) -> None:
    engine = open_engine("sqlite://")
    Base.metadata.create_all(engine)
    factory = sessionmaker(engine)
    sync = LedgerSync()

    loaded = import_saft(factory, path)
    for warning in loaded.warnings:
        say(f"Warning: {warning}")
    say(
        f"{loaded.company_name}, {loaded.period_start} to {loaded.period_end}: {loaded.entries} entries, "
        f"{loaded.documents} documents, {loaded.customers} customers, {loaded.suppliers} suppliers"
    )
    run = sync.backfill(factory, tenant_id=loaded.tenant_id)
    say(f"{run.synced} open items, {run.applied} applications; skipped {run.skipped}\n")
    with factory() as session:
        for item in sync.open_items(session, loaded.tenant_id):
            say(
                f"{item.ledger:8} {item.party_name:17} {item.voucher:20} {item.kind:11} "
                f"{item.amount:>9,.2f} open {item.remaining_amount:>10,.2f}"
            )
        say("")
        show(sync.verify(session, loaded.tenant_id))
    engine.dispose()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".xml"))
