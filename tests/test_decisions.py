"""What people decide about lines is done once for each idempotency key, and who decided it outlives the link."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.decisions import LineDecision
from ledger_sync.errors import ConfigurationError, LinkError, SettlementError
from ledger_sync.models import SourceLink, SupplierLedger, SyncDecision
from tests.books import entry, vendor_invoice, vendor_payment
from tests.test_matching import line_id, post_sourceless
from tests.test_settlement_concurrency import opened, waits

KARI: dict[str, Any] = {"actor": "kari", "reason": "by its number"}
OLA: dict[str, Any] = {"actor": "ola", "reason": "it was another one"}


def links(session: Session) -> list[tuple[int, int, str | None]]:
    return [(one.line_id, one.source_id, one.actor) for one in session.scalars(select(SourceLink))]


def decisions(session: Session) -> list[tuple[str, int, int | None, str, str, str | None]]:
    found = session.scalars(select(SyncDecision).order_by(SyncDecision.id))
    return [
        (one.action, one.general_ledger_line_id, one.source_id, one.actor, one.reason, one.idempotency_key)
        for one in found
    ]


def test_who_linked_a_line_and_who_took_the_link_back_is_kept(session: Session, sync: LedgerSync) -> None:
    first, second = (vendor_invoice(session, 100).id for _ in range(2))
    line = line_id(post_sourceless(session, "2400", -100))
    made = sync.link(session, "acme", line, "vendor_invoice", first, **KARI)
    assert made == LineDecision(
        ledger="supplier",
        tenant_id="acme",
        general_ledger_line_id=line,
        action="link",
        source_type="vendor_invoice",
        source_id=first,
        method="host",
        **KARI,
    )
    taken_back = sync.unlink(session, "acme", line, **OLA)
    assert taken_back == made.model_copy(update={"action": "unlink", **OLA})
    sync.link(session, "acme", line, "vendor_invoice", second, **OLA, method="match")
    session.commit()
    assert links(session) == [(line, second, "ola")]
    assert decisions(session) == [
        ("link", line, first, "kari", "by its number", None),
        ("unlink", line, first, "ola", "it was another one", None),
        ("link", line, second, "ola", "it was another one", None),
    ]


def test_what_is_rolled_back_was_not_decided(engine: Engine, sync: LedgerSync) -> None:
    factory = sessionmaker(engine)
    with factory() as session:
        invoice = vendor_invoice(session, 100).id
        line = line_id(post_sourceless(session, "2400", -100))
        session.commit()
        sync.link(session, "acme", line, "vendor_invoice", invoice, **KARI, idempotency_key="k1")
        session.rollback()
        assert (decisions(session), links(session)) == ([], [])
        sync.link(session, "acme", line, "vendor_invoice", invoice, **KARI, idempotency_key="k1")
        session.commit()
        assert len(decisions(session)) == len(links(session)) == 1


def test_a_link_asked_for_again_by_its_key_is_answered_and_not_made_again(session: Session, sync: LedgerSync) -> None:
    invoice = vendor_invoice(session, 100).id
    line = line_id(post_sourceless(session, "2400", -100))

    def link(**who: Any) -> LineDecision:
        return sync.link(session, "acme", line, "vendor_invoice", invoice, **who)

    first = link(**KARI, idempotency_key="k1")
    assert link(**KARI, idempotency_key="k1") == first
    taken_back = sync.unlink(session, "acme", line, **OLA, idempotency_key="k2")
    session.commit()
    # what a client sends once more, late, links nothing that somebody has taken back meanwhile
    assert link(**KARI, idempotency_key="k1") == first
    assert links(session) == []
    assert session.scalars(select(SupplierLedger)).all() == []
    anew = link(**OLA, idempotency_key="k3")
    session.commit()
    # nor does it take back what was linked anew
    assert sync.unlink(session, "acme", line, **OLA, idempotency_key="k2") == taken_back
    assert links(session) == [(line, invoice, "ola")]
    assert (anew.actor, [row[0] for row in decisions(session)]) == ("ola", ["link", "unlink", "link"])


def test_a_key_is_used_though_the_link_was_there_already(session: Session, sync: LedgerSync) -> None:
    invoice = vendor_invoice(session, 100).id
    line = line_id(post_sourceless(session, "2400", -100))
    sync.link(session, "acme", line, "vendor_invoice", invoice, **KARI)
    asked = sync.link(session, "acme", line, "vendor_invoice", invoice, **OLA, idempotency_key="k1")
    assert (asked.actor, links(session)) == ("ola", [(line, invoice, "kari")])
    sync.unlink(session, "acme", line, **OLA)
    assert sync.link(session, "acme", line, "vendor_invoice", invoice, **OLA, idempotency_key="k1") == asked
    assert links(session) == []


def test_a_key_that_another_call_has_used_is_refused_and_nothing_is_done(session: Session, sync: LedgerSync) -> None:
    first, second = (vendor_invoice(session, 100).id for _ in range(2))
    lines = [line_id(post_sourceless(session, "2400", -100)) for _ in range(2)]
    payment = vendor_payment(session, 40).id
    entry(session, "2400", 40, ("vendor_payment", payment))
    sync.link(session, "acme", lines[0], "vendor_invoice", first, **KARI, idempotency_key="k1")
    session.flush()
    paid, invoice = session.scalars(select(SupplierLedger).order_by(SupplierLedger.amount)).all()
    sync.settle(session, paid, invoice, **KARI, idempotency_key="k2")
    session.commit()
    before = decisions(session), links(session)

    def link(line: int, document: str, document_id: int, key: str, **more: Any) -> None:
        sync.link(session, "acme", line, document, document_id, **KARI, idempotency_key=key, **more)

    for other in (
        lambda: link(lines[1], "vendor_invoice", first, "k1"),
        lambda: link(lines[0], "vendor_invoice", second, "k1"),
        lambda: link(lines[0], "vendor_payment", first, "k1"),
        lambda: link(lines[0], "vendor_invoice", first, "k1", kind="write_off"),
        lambda: sync.unlink(session, "acme", lines[0], **KARI, idempotency_key="k1"),
        lambda: link(lines[0], "vendor_invoice", first, "k2"),
        lambda: sync.unlink(session, "acme", lines[0], **KARI, idempotency_key="k2"),
    ):
        with pytest.raises(LinkError, match=r"Journal line \d+ cannot take the idempotency key 'k\d', which another"):
            other()
    with pytest.raises(SettlementError, match="idempotency key 'k1', which another call has used"):
        sync.unsettle(session, paid, invoice, **KARI, idempotency_key="k1")
    assert (decisions(session), links(session)) == before


def test_two_sessions_that_use_one_key_for_two_lines_at_once_make_one_link(server: Engine, sync: LedgerSync) -> None:
    factory = sessionmaker(server, expire_on_commit=False)
    with factory.begin() as session:
        invoices = [vendor_invoice(session, 100).id for _ in range(2)]
        lines = [line_id(post_sourceless(session, "2400", -100)) for _ in range(2)]

    def link(session: Session, which: int) -> None:
        sync.link(session, "acme", lines[which], "vendor_invoice", invoices[which], **KARI, idempotency_key="k1")

    first, second = (opened(factory, "READ COMMITTED") for _ in range(2))
    with first, second, ThreadPoolExecutor(1) as pool:
        link(first, 0)
        other = pool.submit(link, second, 1)
        assert waits(server, second, other)
        first.commit()
        with pytest.raises(LinkError, match="idempotency key 'k1', which another call has used"):
            other.result()
        # what the refused call's session has else is not lost
        link_of_its_own = sync.link(second, "acme", lines[1], "vendor_invoice", invoices[1], **KARI)
        second.commit()
    with factory() as session:
        assert [row[:2] for row in sorted(links(session))] == list(zip(lines, invoices, strict=True))
        assert link_of_its_own.idempotency_key is None
        assert [row[5] for row in decisions(session)] == ["k1", None]


def test_rows_that_nobody_chose_are_not_adopted_as_chosen(session: Session, sync: LedgerSync) -> None:
    for who in ({}, {"actor": "kari"}, {"reason": "r"}, {"actor": "", "reason": "r"}):
        with pytest.raises(ConfigurationError, match=r"not by whom and why\. Give actor=… and reason=…"):
            sync.adopt(session, "acme", chosen={1: 2}, **who)


def test_a_link_that_another_session_has_changed_meanwhile_is_seen_as_it_is(server: Engine, sync: LedgerSync) -> None:
    factory = sessionmaker(server, expire_on_commit=False)
    with factory.begin() as session:
        first, second = (vendor_invoice(session, 100).id for _ in range(2))
        line = line_id(post_sourceless(session, "2400", -100))
        sync.link(session, "acme", line, "vendor_invoice", first, **KARI)
    with opened(factory, "READ COMMITTED") as remembering:
        remembered = remembering.get_one(SourceLink, line)
        assert remembered.source_id == first
        with factory.begin() as other:
            sync.unlink(other, "acme", line, **OLA)
            sync.link(other, "acme", line, "vendor_invoice", second, **OLA, kind="write_off")
        with pytest.raises(LinkError, match="has a source link already"):
            sync.link(remembering, "acme", line, "vendor_invoice", first, **KARI)
        taken_back = sync.unlink(remembering, "acme", line, **KARI)
        assert (taken_back.source_id, taken_back.kind) == (second, "write_off")
        remembering.commit()


def test_the_same_call_may_give_the_documents_id_as_text(sqlite_engine: Engine, sync: LedgerSync) -> None:
    with sessionmaker(sqlite_engine)() as session:
        invoice = vendor_invoice(session, 100).id
        line = line_id(post_sourceless(session, "2400", -100))
        first = sync.link(session, "acme", line, "vendor_invoice", invoice, **KARI, idempotency_key="k1")
        assert sync.link(session, "acme", line, "vendor_invoice", str(invoice), **KARI, idempotency_key="k1") == first


def test_a_registry_of_sessions_is_as_good_as_a_session(engine: Engine, sync: LedgerSync) -> None:
    registry = scoped_session(sessionmaker(engine))
    invoice, payment = vendor_invoice(registry, 100).id, vendor_payment(registry, 40).id
    entries = [
        entry(registry, "2400", -100, ("vendor_invoice", invoice)),
        entry(registry, "2400", 40, ("vendor_payment", payment)),
    ]
    registry.flush()
    sync.sync_entries(registry, [one.id for one in entries])
    paid, owed = registry.scalars(select(SupplierLedger).order_by(SupplierLedger.amount)).all()
    sync.settle(registry, paid, owed, 10, **KARI)
    registry.commit()
    assert owed.remaining_amount == 90
    registry.remove()
