"""What can be asked over HTTP: one table of operations, from which come the routes and the OpenAPI document.

Whatever comes in goes through a pydantic model that knows all of its fields; what it does not know is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.requests import ClientDisconnect, Request

from ledger_sync.by_hand import Application
from ledger_sync.contrib.web.auth import Principal, Right
from ledger_sync.contrib.web.problems import ProblemError

BODY_MAX: Final = 64 * 1024
"""Bytes of a request's body."""

LINES_MAX: Final = 1000
"""Lines of one answer, at the most."""

Kind = Literal["customer_invoices", "vendor_invoices", "expenses"]
LedgerName = Literal["supplier", "customer", "employee"]

M = TypeVar("M", bound=BaseModel)


def _as_written(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        return date.fromisoformat(value)
    raise ValueError("should be a date such as 2026-03-31")


Day = Annotated[date, BeforeValidator(_as_written)]
"""A date as JSON writes it, and not a number that might stand for one."""


class Asked(BaseModel):
    """What a request gives; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


class OfTenant(Asked):
    """Whose books; needed by who has several."""

    tenant: str | None = Field(default=None, max_length=200)


class History(OfTenant):
    """The newest runs."""

    limit: int = Field(default=20, ge=1, le=200)


class AsOf(OfTenant):
    """A day, at the end of which; now unless given."""

    as_of: Day | None = None


class LinesOfCause(AsOf):
    """The lines behind one cause."""

    account: str | None = Field(default=None, max_length=50)
    cause: str | None = Field(default=None, max_length=50)
    limit: int = Field(default=200, ge=1, le=LINES_MAX)


class Search(OfTenant):
    """A voucher, a document's number, or ``vendor_invoice:8907``."""

    q: str = Field(min_length=1, max_length=200)


class ErrorsOf(OfTenant):
    """The newest errors of a run."""

    limit: int = Field(default=100, ge=1, le=LINES_MAX)


class ItemsOf(AsOf):
    """Open items of one ledger, or of all."""

    ledger: LedgerName | None = None
    include_settled: bool = False
    limit: int = Field(default=200, ge=1, le=LINES_MAX)


class AgeingOf(AsOf):
    """Ageing of one ledger, or of all."""

    ledger: LedgerName | None = None


class StatementOf(OfTenant):
    """One party's account over a period."""

    ledger: LedgerName
    party: str = Field(min_length=1, max_length=200)
    since: Day | None = None
    until: Day | None = None


class Start(OfTenant):
    """What a sync is confined to; all of history unless given."""

    kinds: tuple[Kind, ...] | None = Field(default=None, min_length=1)
    since: Day | None = None
    until: Day | None = None
    dry_run: bool = False


class Pair(OfTenant):
    """Two open items of one ledger, named by their journal lines, and why somebody settles them, takes them apart, or
    takes that back.

    The same call with the same key again gives the first answer.
    """

    ledger: LedgerName
    from_line: str = Field(min_length=1, max_length=200)
    to_line: str = Field(min_length=1, max_length=200)
    on: Day | None = None
    reason: str = Field(min_length=1, max_length=500)
    idempotency_key: str = Field(min_length=1, max_length=100)


class Settle(Pair):
    """How much is settled, as a decimal text; all that is left of both unless given."""

    # a text: what is a number in JSON is no exact amount with everybody who reads or writes it
    amount: str | None = Field(default=None, pattern=r"^[0-9]{1,20}(\.[0-9]{1,20})?$")


class Nothing(Asked):
    """No fields."""


@dataclass(frozen=True)
class Call:
    """One request, after all that is the same for every operation: who asks, for what, of which run."""

    principal: Principal
    asked: Any
    run_id: int | None = None


Handler: TypeAlias = Callable[[Call], Awaitable[BaseModel]]


@dataclass(frozen=True)
class Operation:
    """One method of one path, relative to ``/api/ledger``."""

    method: Literal["GET", "POST"]
    path: str
    name: str
    summary: str
    right: Right
    query: type[BaseModel]
    body: type[BaseModel] | None
    answer: type[BaseModel]
    status: int
    handler: Handler
    problems: tuple[int, ...] = ()


def reading(
    path: str,
    name: str,
    summary: str,
    query: type[BaseModel],
    answer: type[BaseModel],
    handler: Handler,
    problems: tuple[int, ...] = (),
) -> Operation:
    """An operation that only reads."""
    return Operation("GET", path, name, summary, "read", query, None, answer, 200, handler, problems)


def acting(
    path: str, name: str, summary: str, body: type[BaseModel], answer: type[BaseModel], handler: Handler
) -> Operation:
    """An operation on a run, whose work goes on after the answer; a run that cannot do it now is a conflict."""
    return Operation("POST", path, name, summary, "sync", OfTenant, body, answer, 202, handler, (409,))


def settling(path: str, name: str, summary: str, body: type[BaseModel], handler: Handler) -> Operation:
    """An operation that a person does by hand, done when it is answered."""
    return Operation("POST", path, name, summary, "settle", OfTenant, body, Application, 200, handler)


def query_of(model: type[M], request: Request) -> M:
    """The query of a request.

    :raises ProblemError: it does not fit.
    """
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            raise ProblemError(422, "Refused", f"The query names {name[:60]} twice.", "Name it once.")
        given[name] = value
    return _validated(model, given, "query")


async def body_of(model: type[M], request: Request) -> M:
    """The JSON body of a request; an empty one is an empty object.

    :raises ProblemError: it is too large, no JSON, or does not fit.
    """
    raw = await _read(request)
    if not raw.strip():
        return _validated(model, {}, "body")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ProblemError(415, "No JSON", "The body is of another type.", "Send Content-Type: application/json.")
    try:
        given = json.loads(raw)
    except (ValueError, RecursionError):
        raise ProblemError(
            400, "No JSON", "The body cannot be read as JSON.", "Send one JSON object, in UTF-8."
        ) from None
    return _validated(model, given, "body", raw)


async def _read(request: Request) -> bytes:
    too_large = ProblemError(413, "Too large", f"The body has more than {BODY_MAX:,} bytes.", "Send the filters alone.")
    try:
        if int(request.headers.get("content-length", 0)) > BODY_MAX:
            raise too_large
    except ValueError:
        raise ProblemError(400, "Refused", "Content-Length is no number.", "Leave it to the HTTP client.") from None
    raw = bytearray()
    try:
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > BODY_MAX:
                raise too_large
    except ClientDisconnect:
        raise ProblemError(400, "Refused", "The request ended within its body.") from None
    return bytes(raw)


def _validated(model: type[M], given: Any, place: str, raw: bytes | None = None) -> M:
    try:
        # a query is text throughout; in a body a number stands for nothing else, nor a text for a truth
        return model.model_validate(given) if raw is None else model.model_validate_json(raw, strict=True)
    except ValidationError as error:
        wrong = [
            {"field": ".".join(str(part)[:60] for part in one["loc"][:4]), "message": one["msg"][:200]}
            for one in error.errors(include_url=False, include_input=False, include_context=False)[:20]
        ]
        said = "; ".join(f"{one['field'] or place}: {one['message']}" for one in wrong[:3])
        raise ProblemError(
            422, "Refused", f"The {place} does not fit. {said}", "See api/ledger/openapi.json.", {"errors": wrong}
        ) from None
