"""What is registered and posted: companies, parties, invoices, payments, manual entries, reversals.

Each request is one transaction, in which the open item is written, and what a payment settles, too.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from ledger_sync.kid import with_mod10
from ledger_sync.models import (
    Customer,
    CustomerInvoice,
    CustomerPayment,
    JournalEntry,
    Vendor,
    VendorInvoice,
    VendorPayment,
)

from . import schemas as s
from .backend import Books, Tenant, find
from .posting import BANK, INPUT_VAT, OUTPUT_VAT, PAYABLES, RECEIVABLES, Company, held, next_voucher, post

router = APIRouter()


async def _added(session: AsyncSession, what: str, made: Any) -> Any:
    session.add(made)
    try:
        await session.flush()
    except IntegrityError:
        raise HTTPException(409, f"{what} is there already. Use that one, or choose another number.") from None
    return made


@router.post("/companies", status_code=201, response_model=s.CompanyIn)
async def register_company(wanted: s.CompanyIn, books: Books) -> Any:
    async with books.transaction() as session:
        await _added(session, f"Company {wanted.id}", Company(**wanted.model_dump()))
    return wanted


@router.post("/vendors", status_code=201, response_model=s.Party)
async def register_vendor(wanted: s.PartyIn, books: Books, tenant: Tenant) -> Any:
    async with books.transaction() as session:
        vendor = Vendor(tenant_id=tenant, **wanted.model_dump())
        return await _added(session, f"Vendor {wanted.number}", vendor)


@router.post("/customers", status_code=201, response_model=s.Party)
async def register_customer(wanted: s.PartyIn, books: Books, tenant: Tenant) -> Any:
    async with books.transaction() as session:
        customer = Customer(tenant_id=tenant, **wanted.model_dump())
        return await _added(session, f"Customer {wanted.number}", customer)


@router.post("/vendor-invoices", status_code=201, response_model=s.PostedInvoice)
async def post_vendor_invoice(wanted: s.VendorInvoiceIn, books: Books, tenant: Tenant) -> Any:
    async with books.transaction() as session:
        await find(session, Vendor, wanted.party_id, tenant)
        invoice = VendorInvoice(
            tenant_id=tenant,
            vendor_id=wanted.party_id,
            **wanted.model_dump(include={"invoice_number", "invoice_date", "due_date", "amount", "payment_reference"}),
        )
        session.add(invoice)
        await session.flush()
        lines = [(wanted.account, wanted.amount - wanted.vat), (INPUT_VAT, wanted.vat), (PAYABLES, -wanted.amount)]
        entry = await post(session, tenant, wanted.invoice_date, lines, (wanted.source_type, invoice.id))
    return {"invoice": invoice, "entry": entry}


@router.post("/customer-invoices", status_code=201, response_model=s.PostedInvoice)
async def post_customer_invoice(wanted: s.CustomerInvoiceIn, books: Books, tenant: Tenant) -> Any:
    async with books.transaction() as session:
        await find(session, Customer, wanted.party_id, tenant)
        company = await held(session, tenant)
        company.last_invoice += 1
        invoice = CustomerInvoice(
            tenant_id=tenant,
            customer_id=wanted.party_id,
            invoice_number=str(company.last_invoice),
            payment_reference=with_mod10(f"{wanted.party_id:06}{company.last_invoice:06}"),
            **wanted.model_dump(include={"invoice_date", "due_date", "amount"}),
        )
        session.add(invoice)
        await session.flush()
        lines = [(RECEIVABLES, wanted.amount), (wanted.account, wanted.vat - wanted.amount), (OUTPUT_VAT, -wanted.vat)]
        entry = await post(session, tenant, wanted.invoice_date, lines, ("customer_invoice", invoice.id))
    return {"invoice": invoice, "entry": entry}


@router.post("/vendor-payments", status_code=201, response_model=s.Entry)
async def pay_vendor(wanted: s.PaymentIn, books: Books, tenant: Tenant) -> Any:
    """Pay a vendor. The invoice that the reference names is settled with it."""
    async with books.transaction() as session:
        await find(session, Vendor, wanted.party_id, tenant)
        payment = VendorPayment(tenant_id=tenant, vendor_id=wanted.party_id, **_paid(wanted))
        session.add(payment)
        await session.flush()
        lines = [(PAYABLES, wanted.amount), (BANK, -wanted.amount)]
        return await post(session, tenant, wanted.payment_date, lines, ("vendor_payment", payment.id))


@router.post("/customer-payments", status_code=201, response_model=s.Entry)
async def receive_payment(wanted: s.PaymentIn, books: Books, tenant: Tenant) -> Any:
    """Receive a customer's payment. The invoice that the KID names, or the number, is settled with it."""
    async with books.transaction() as session:
        await find(session, Customer, wanted.party_id, tenant)
        payment = CustomerPayment(tenant_id=tenant, customer_id=wanted.party_id, **_paid(wanted))
        session.add(payment)
        await session.flush()
        lines = [(BANK, wanted.amount), (RECEIVABLES, -wanted.amount)]
        return await post(session, tenant, wanted.payment_date, lines, ("customer_payment", payment.id))


def _paid(wanted: s.PaymentIn) -> dict[str, Any]:
    return {"payment_date": wanted.payment_date, "amount": wanted.amount, "payment_reference": wanted.reference}


@router.post("/entries", status_code=201, response_model=s.Entry)
async def post_manual_entry(wanted: s.EntryIn, books: Books, tenant: Tenant) -> Any:
    """Post what comes from no document. It gets no open item, by design, even on a control account."""
    async with books.transaction() as session:
        lines = [(line.account, line.amount) for line in wanted.lines]
        return await post(session, tenant, wanted.entry_date, lines, description=wanted.description)


@router.post("/entries/{entry_id}/reversal", status_code=201, response_model=s.Entry)
async def reverse_entry(entry_id: int, wanted: s.ReversalIn, books: Books, tenant: Tenant) -> Any:
    """Reverse an entry. What it had settled is open again."""
    async with books.transaction() as session:
        number = await next_voucher(session, tenant)
        entry = await find(session, JournalEntry, entry_id, tenant)
        # it reads the entry's lines as it goes, for which an asynchronous session has run_sync
        reversal = await session.run_sync(lambda _: entry.reverse(wanted.on, voucher_number=number))
        session.add(reversal)
        await session.flush()
        return reversal
