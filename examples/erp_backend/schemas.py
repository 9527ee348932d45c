"""What requests and answers look like. Amounts are decimal strings, both ways.

Lengths and the like are not repeated here: the models check them, and say what is wrong.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema


def _as_text(value: object) -> object:
    if not isinstance(value, str):
        # a JSON number is a float to many a client, and 0.1 + 0.2 is not 0.3 there
        raise ValueError('write the amount as a string, "125.00" say')
    return value


Amount = Annotated[
    Decimal,
    BeforeValidator(_as_text),
    Field(max_digits=15, decimal_places=2),
    WithJsonSchema({"type": "string", "examples": ["18750.00"]}),
]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class CompanyIn(Request):
    id: Annotated[str, Field(min_length=1, max_length=64)]
    name: Annotated[str, Field(max_length=250)]


class PartyIn(Request):
    number: str
    name: str


class Party(Answer):
    id: int
    number: str
    name: str


class InvoiceIn(Request):
    """``amount``: what is to be paid, VAT included. ``vat``: how much of it is. ``account``: where the rest goes."""

    party_id: int
    invoice_date: date
    due_date: date
    amount: Annotated[Amount, Field(gt=0)]
    vat: Annotated[Amount, Field(ge=0)] = Decimal(0)


class VendorInvoiceIn(InvoiceIn):
    """``source_type``: how it came, on paper or by EHF."""

    source_type: Literal["vendor_invoice", "ehf_invoice"] = "vendor_invoice"
    invoice_number: str
    payment_reference: str | None = None
    account: str = "4300"


class CustomerInvoiceIn(InvoiceIn):
    """Its number and its KID are given by the backend."""

    account: str = "3000"


class Invoice(Answer):
    id: int
    invoice_number: str
    payment_reference: str | None
    amount: Decimal


class Entry(Answer):
    id: int
    voucher: str
    entry_date: date
    source_type: str | None
    source_id: int | None


class PostedInvoice(Answer):
    invoice: Invoice
    entry: Entry


class PaymentIn(Request):
    """``reference``: the KID that the payer quotes, or the invoice's number."""

    party_id: int
    payment_date: date
    amount: Annotated[Amount, Field(gt=0)]
    reference: str | None = None


class LineIn(Request):
    """``amount``: debit positive, credit negative."""

    account: str
    amount: Amount


class EntryIn(Request):
    entry_date: date
    description: str
    lines: Annotated[list[LineIn], Field(max_length=1000)]


class ReversalIn(Request):
    on: date


class BackfillIn(Request):
    since: date | None = None
    until: date | None = None
    dry_run: bool = False
