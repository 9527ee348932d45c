"""How this ERP does its bookkeeping: gapless numbers, and journal entries that name the document they come from.

Nothing here knows of subledgers. That an entry names its source is all that ``ledger_sync`` needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Final

from sqlalchemy import String
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ledger_sync.models import JournalEntry, JournalLine

BANK: Final = "1920"
RECEIVABLES: Final = "1500"
PAYABLES: Final = "2400"
OUTPUT_VAT: Final = "2700"
INPUT_VAT: Final = "2710"


class ErpBase(DeclarativeBase):
    """The ERP's own tables, beside the ready-made ones."""


class Company(ErpBase):
    """A tenant, and the last numbers that it has used."""

    __tablename__ = "companies"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(250))
    last_voucher: Mapped[int] = mapped_column(default=0)
    last_invoice: Mapped[int] = mapped_column(default=0)


async def held(session: AsyncSession, tenant: str) -> Company:
    """The tenant's company, whose row is held until the transaction ends.

    So its numbers have no gaps: a posting that fails gives its number back.
    """
    return await session.get_one(Company, tenant, with_for_update=True, populate_existing=True)


async def next_voucher(session: AsyncSession, tenant: str) -> str:
    """The number of the tenant's next voucher."""
    company = await held(session, tenant)
    company.last_voucher += 1
    return str(company.last_voucher)


async def post(
    session: AsyncSession,
    tenant: str,
    on: date,
    lines: Iterable[tuple[str, Decimal]],
    source: tuple[str, int] | None = None,
    description: str | None = None,
) -> JournalEntry:
    """Post one journal entry, and flush it, which writes its open item as well.

    :param lines: accounts with their amounts, debit positive and credit negative. Zeros are left out.
    :param source: the document that it comes from, as source type and id; None for a manual entry.
    """
    source_type, source_id = source or (None, None)
    entry = JournalEntry(
        tenant_id=tenant,
        voucher_number=await next_voucher(session, tenant),
        entry_date=on,
        source_type=source_type,
        source_id=source_id,
        description=description,
    )
    for account, amount in lines:
        if amount:
            sides = {"debit": amount} if amount > 0 else {"credit": -amount}
            entry.lines.append(JournalLine(account_number=account, **sides))
    entry.post()
    session.add(entry)
    await session.flush()
    return entry
