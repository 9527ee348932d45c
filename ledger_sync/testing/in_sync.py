"""What a host needs to test its own integration: one assertion that its books are in sync.

Put it at the end of any test that posts, pays, credits or reverses: it takes the proof, and when something is missing,
differs or is orphaned, it fails with the vouchers.
"""

from __future__ import annotations

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from ledger_sync.proof import Proof
from ledger_sync.runs import tenants_in
from ledger_sync.sync import LedgerSync


def assert_in_sync(session: Session, sync: LedgerSync, *tenant_ids: str) -> None:
    """Assert that the subledgers are what the general ledger calls for, in the session's own transaction.

    What is pending is flushed first. In async code: ``await session.run_sync(assert_in_sync, sync)``.

    :param tenant_ids: whose books; everybody's unless given.
    :raises AssertionError: it names each fault, with examples and what to do next.
    """
    session.flush()
    connection = session.connection(bind_arguments={"mapper": inspect(sync.binding.entry)})
    tenants = tenant_ids or tuple(tenants_in(connection, sync.binding))
    proofs = (sync.verify(session, tenant_id) for tenant_id in tenants)
    faults = [fault for proof in proofs for fault in _faults(proof)]
    if faults:
        raise AssertionError("The books are not in sync.\n" + "\n".join(faults))


def _faults(proof: Proof) -> list[str]:
    told = []
    for account in proof.accounts:
        for cause in account.faults:
            examples = ", ".join(
                f"voucher {example.voucher} ({example.amount})" if example.voucher else f"a row of {-example.amount}"
                for example in cause.examples
            )
            told.append(
                f"Tenant {proof.tenant_id}, account {account.account_number}: {cause.name} ({cause.count}, "
                f"{cause.amount} in all): {examples}. {cause.next_step}"
            )
    for finding in proof.findings:
        if finding.fault:
            examples = ", ".join(subject.text for subject in finding.examples)
            told.append(
                f"Tenant {proof.tenant_id}, {finding.ledger} ledger: {finding.name} ({finding.count}): {examples}. "
                f"{finding.next_step}"
            )
    return told
