"""What the books say: open items, ageing, the proof, and why something has no open item. All of it reads only.

The results are the library's own, which are pydantic models; whatever takes a session runs in ``run_sync``.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

from fastapi import APIRouter

from ledger_sync import Proof
from ledger_sync.explain import Explanation
from ledger_sync.reports import Ageing, OpenItem

from .backend import Books, Tenant

router = APIRouter()

LedgerName = Literal["customer", "supplier", "employee"]


@router.get("/open-items")
async def open_items(
    books: Books,
    tenant: Tenant,
    ledger: LedgerName | None = None,
    party_id: int | None = None,
    as_of: date | None = None,
    include_settled: bool = False,
) -> list[OpenItem]:
    async with books.sessions() as session:
        found = await session.run_sync(
            books.sync.open_items,
            tenant,
            ledgers=None if ledger is None else [ledger],
            party_id=party_id,
            as_of=as_of,
            include_settled=include_settled,
        )
    return list(found)


@router.get("/ageing")
async def ageing(books: Books, tenant: Tenant, ledger: LedgerName | None = None, as_of: date | None = None) -> Ageing:
    async with books.sessions() as session:
        ledgers = None if ledger is None else [ledger]
        return await session.run_sync(books.sync.ageing, tenant, as_of=as_of, ledgers=ledgers)


@router.get("/proof")
async def proof(books: Books, tenant: Tenant, as_of: date | None = None) -> Proof:
    """Each control account against its subledger; every difference has a cause."""
    async with books.sessions() as session:
        return await session.run_sync(books.sync.verify, tenant, as_of)


@router.get("/explanation")
async def explanation(books: Books, tenant: Tenant, subject: str) -> Explanation:
    """Why an invoice has no open item, or what became of it.

    ``subject``: a voucher as people write it (``17``, ``17/2026``), or a document by its number
    (``vendor_invoice:8907``).
    """
    async with books.sessions() as session:
        return await session.run_sync(books.sync.explain, subject, tenant)
