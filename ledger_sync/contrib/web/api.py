"""The operations: each asks the public face about one tenant's books, and answers with what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import partial
from itertools import islice
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger_sync import Proof, __version__
from ledger_sync.binding import attribute
from ledger_sync.by_hand import Application
from ledger_sync.contrib.keys import key_of
from ledger_sync.contrib.web.auth import RIGHTS
from ledger_sync.contrib.web.books import Books
from ledger_sync.contrib.web.crew import Workers
from ledger_sync.contrib.web.operations import (
    AgeingOf,
    AsOf,
    Call,
    ErrorsOf,
    History,
    ItemsOf,
    LinesOfCause,
    Nothing,
    OfTenant,
    Operation,
    Pair,
    Search,
    Settle,
    Start,
    StatementOf,
    acting,
    reading,
    settling,
)
from ledger_sync.contrib.web.payloads import (
    KINDS,
    Envelope,
    ErrorLine,
    Payload,
    Run,
    error_line,
    payload_of,
    run_of,
)
from ledger_sync.contrib.web.problems import ProblemError, not_there
from ledger_sync.contrib.web.tenants import Tenants
from ledger_sync.errors import NotInTheBooksError, RunStateError, TextError
from ledger_sync.explain import Explanation
from ledger_sync.findings import Finding
from ledger_sync.proof import AccountProof, Difference
from ledger_sync.reports import Ageing, OpenItem
from ledger_sync.statements import Statement

STARTED: Final = "Data sync started. You will receive real-time updates."


class SignedIn(Envelope):
    """Who asks, and what they may do."""

    name: str
    tenants: tuple[str, ...]
    rights: tuple[str, ...]
    expires_at: datetime | None
    kinds: tuple[str, ...]
    version: str


class Started(Envelope):
    """A sync has begun."""

    success: bool
    message: str
    sync_id: str


class Runs(Envelope):
    """The newest runs, the newest first."""

    runs: tuple[Run, ...]


class Errors(Envelope):
    """The newest errors of a run; ``total``: how many it has met."""

    errors: tuple[ErrorLine, ...]
    total: int


class ToldProof(BaseModel):
    """A proof, with what it comes to. Fields as of ``Proof``."""

    tenant_id: Any
    as_of: date | None
    accounts: tuple[AccountProof, ...]
    findings: tuple[Finding, ...]
    with_findings: bool
    runs_active: tuple[Any, ...]
    clean: bool


class Lines(Envelope):
    """Lines behind a proof; ``more``: there are others."""

    lines: tuple[Difference, ...]
    more: bool


class Items(Envelope):
    """Open items; ``more``: there are others."""

    items: tuple[OpenItem, ...]
    more: bool


class Found(Explanation):
    """What became of what was searched for; ``others``: what else bears that number, as it is searched for."""

    others: tuple[str, ...] = ()


class Api:
    """The operations on the books of one ``LedgerSync``.

    :param workers: who works on the runs that are started and resumed.
    :param taken: is told the id of such a run, to follow it.
    """

    def __init__(self, books: Books, tenants: Tenants, workers: Workers, taken: Callable[[int], object]) -> None:
        self.books = books
        self.sync = books.sync
        self.tenants = tenants
        self.workers = workers
        self.taken = taken

    def operations(self) -> Sequence[Operation]:
        """All of them."""
        run = "/sync-data/{syncId}"
        return (
            reading("/session", "session", "Who you are", Nothing, SignedIn, self.session),
            acting("/sync-data", "start", "Start a sync", Start, Started, self.start),
            reading("/sync-data", "history", "The newest runs", History, Runs, self.history),
            reading(run, "run", "How far a run is", OfTenant, Payload, self.run, (409,)),
            reading(f"{run}/errors", "errors", "A run's errors", ErrorsOf, Errors, self.errors),
            acting(f"{run}/pause", "pause", "Pause a run", Nothing, Payload, self.pause),
            acting(f"{run}/resume", "resume", "Resume a run", Nothing, Payload, self.resume),
            acting(f"{run}/cancel", "cancel", "Cancel a run", Nothing, Payload, self.cancel),
            reading("/proof", "proof", "Prove the books", AsOf, ToldProof, self.proof),
            reading("/proof/lines", "lines", "The lines behind a proof", LinesOfCause, Lines, self.lines),
            reading("/explain", "explain", "Why something has a row, or none", Search, Found, self.explain),
            reading("/open-items", "items", "Open items", ItemsOf, Items, self.items),
            reading("/ageing", "ageing", "Open items by age", AgeingOf, Ageing, self.ageing),
            reading("/statement", "statement", "One party's account", StatementOf, Statement, self.statement),
            settling("/settle", "settle", "Settle two items by hand", Settle, self.settle),
            settling("/unsettle", "unsettle", "Take two items apart", Pair, self.unsettle),
            settling("/release", "release", "Take back that two items are kept apart", Pair, self.release),
        )

    def _tenant(self, call: Call) -> Any:
        """What the library is given as ``tenant_id``.

        :raises ProblemError: it is not the principal's.
        """
        return self.tenants.one(call.principal, call.asked.tenant)

    # -- runs ------------------------------------------------------------------------------------------

    async def session(self, call: Call) -> BaseModel:
        return SignedIn(
            name=call.principal.name,
            tenants=tuple(map(str, self.tenants.of(call.principal))) if self.tenants.several else (),
            rights=tuple(right for right in RIGHTS if right in call.principal.rights),
            expires_at=call.principal.expires_at,
            kinds=tuple(kind for kind, ledger in KINDS.items() if ledger in self.sync.settings.ledgers()),
            version=__version__,
        )

    async def start(self, call: Call) -> BaseModel:
        asked: Start = call.asked
        run_id = await self.workers.start(
            tenant_id=self._tenant(call),
            since=asked.since,
            until=asked.until,
            ledgers=None if asked.kinds is None else [KINDS[kind] for kind in asked.kinds],
            dry_run=asked.dry_run,
            actor=call.principal.name,
        )
        self.taken(run_id)
        return Started(success=True, message=STARTED, sync_id=str(run_id))

    async def history(self, call: Call) -> BaseModel:
        tenant = self._tenant(call)
        reports = await self.books.read(lambda s: self.sync.runs(s, tenant, limit=call.asked.limit))
        return Runs(runs=tuple(map(run_of, reports)))

    async def _of_run(self, call: Call) -> tuple[int, Any]:
        """The run that is meant, and its tenant.

        :raises ProblemError: there is no such run in the tenant's books.
        """
        tenant, run_id = self._tenant(call), call.run_id
        if run_id is None:
            raise not_there()

        def exists(session: Session) -> bool:
            try:
                self.sync.report(session, run_id, tenant_id=tenant)
            except RunStateError:
                return False
            return True

        if not await self.books.read(exists):
            raise not_there()
        return run_id, tenant

    async def run(self, call: Call) -> BaseModel:
        run_id, tenant = await self._of_run(call)
        return await self.books.read(lambda s: payload_of(self.sync, s, run_id, tenant))

    async def errors(self, call: Call) -> BaseModel:
        run_id, tenant = await self._of_run(call)

        def read(session: Session) -> Errors:
            found = self.sync.failures(session, tenant, run_id=run_id, resolved=True, limit=call.asked.limit)
            report = self.sync.report(session, run_id, tenant_id=tenant)
            return Errors(errors=tuple(map(error_line, found)), total=max(report.errors, len(found)))

        return await self.books.read(read)

    async def pause(self, call: Call) -> BaseModel:
        run_id, tenant = await self._of_run(call)
        await self.books.write(lambda s: self.sync.pause(s, run_id, tenant_id=tenant))
        return await self.run(call)

    async def cancel(self, call: Call) -> BaseModel:
        run_id, tenant = await self._of_run(call)
        await self.books.write(lambda s: self.sync.cancel(s, run_id, tenant_id=tenant))
        return await self.run(call)

    async def resume(self, call: Call) -> BaseModel:
        run_id, tenant = await self._of_run(call)
        report = await self.books.read(lambda s: self.sync.report(s, run_id, tenant_id=tenant))
        if report.state == "running" and not report.died:
            raise ProblemError(
                409, "The sync is running", "Somebody is working on it.", "Follow it.", {"syncId": str(run_id)}
            )
        if await self.workers.resume(run_id, tenant_id=tenant):
            self.taken(run_id)
        return await self.run(call)

    # -- the books -------------------------------------------------------------------------------------

    async def proof(self, call: Call) -> BaseModel:
        tenant, as_of = self._tenant(call), call.asked.as_of
        proof = await self.books.read(lambda s: self.sync.verify(s, tenant, as_of))
        return ToldProof(
            **{name: getattr(proof, name) for name in Proof.model_fields},
            clean=proof.clean,
        )

    async def lines(self, call: Call) -> BaseModel:
        asked: LinesOfCause = call.asked
        tenant = self._tenant(call)

        def read(session: Session) -> list[Difference]:
            chosen = self.sync.differences(
                session, tenant, asked.as_of, account_number=asked.account, cause=asked.cause
            )
            return list(islice(chosen, asked.limit + 1))

        found = await self.books.read(read)
        return Lines(lines=tuple(found[: asked.limit]), more=len(found) > asked.limit)

    async def explain(self, call: Call) -> BaseModel:
        tenant, asked = self._tenant(call), call.asked.q.strip()
        if not asked:
            raise ProblemError(422, "Refused", "The search is empty.", "Give a voucher or the number of a document.")
        return await self.books.read(lambda s: self._found(s, tenant, asked))

    def _found(self, session: Session, tenant: Any, asked: str) -> Found:
        """The voucher of that name, or else a document of that number; and what else has it, whatever that is."""
        ledgers = [self.sync.binding.ledger(name) for name in self.sync.settings.ledgers()]
        documents = [f"{document.name}:{asked}" for ledger in ledgers for document in ledger.documents]
        found: list[tuple[str, Explanation]] = []
        could_be: list[str] = []
        first: NotInTheBooksError | None = None
        named = {document.name for ledger in ledgers for document in ledger.documents}
        for subject in [asked, *([] if asked.partition(":")[0] in named else documents)]:
            try:
                found.append((subject, self.sync.explain(session, subject, tenant)))
            except NotInTheBooksError as error:
                could_be += error.could_be
                first = first or error
            except TextError:
                if subject == asked:
                    raise
                # too long for a document's number, though perhaps not for a voucher's name
        if not found:
            assert first is not None
            raise first
        (_, explanation), *others = found
        return Found(**explanation.model_dump(), others=(*could_be, *(subject for subject, _ in others)))

    async def items(self, call: Call) -> BaseModel:
        asked: ItemsOf = call.asked
        tenant = self._tenant(call)
        ledgers = None if asked.ledger is None else [self._ledger(asked.ledger)]
        found = await self.books.read(
            lambda s: self.sync.open_items(
                s,
                tenant,
                ledgers=ledgers,
                as_of=asked.as_of,
                include_settled=asked.include_settled,
                limit=asked.limit + 1,
            )
        )
        return Items(items=found[: asked.limit], more=len(found) > asked.limit)

    async def ageing(self, call: Call) -> BaseModel:
        asked: AgeingOf = call.asked
        tenant = self._tenant(call)
        ledgers = None if asked.ledger is None else [self._ledger(asked.ledger)]
        return await self.books.read(lambda s: self.sync.ageing(s, tenant, as_of=asked.as_of, ledgers=ledgers))

    async def statement(self, call: Call) -> BaseModel:
        asked: StatementOf = call.asked
        tenant = self._tenant(call)
        ledger = self._ledger(asked.ledger)
        model = self.sync.binding.ledger(ledger).party_model
        party = asked.party if model is None else key_of(asked.party, attribute(model, "id").type)
        if party is None:
            raise not_there()
        return await self.books.read(
            lambda s: self.sync.statement(s, tenant, ledger, party, since=asked.since, until=asked.until)
        )

    # -- by hand ---------------------------------------------------------------------------------------

    async def settle(self, call: Call) -> BaseModel:
        asked: Settle = call.asked
        return await self._by_hand(call, partial(self.sync.settle, amount=asked.amount))

    async def unsettle(self, call: Call) -> BaseModel:
        return await self._by_hand(call, self.sync.unsettle)

    async def release(self, call: Call) -> BaseModel:
        return await self._by_hand(call, self.sync.release)

    async def _by_hand(self, call: Call, done: Callable[..., Application]) -> Application:
        """Do something to the two items that are meant, in the principal's name.

        :raises ProblemError: the tenant's books do not have both.
        """
        asked: Pair = call.asked
        tenant, ledger = self._tenant(call), self._ledger(asked.ledger)

        def write(session: Session) -> Application:
            items = [self._item(session, tenant, ledger, line) for line in (asked.from_line, asked.to_line)]
            told = {"reason": asked.reason, "idempotency_key": asked.idempotency_key}
            return done(session, *items, on=asked.on, actor=call.principal.name, **told)

        return await self.books.write(write)

    def _item(self, session: Session, tenant: Any, ledger: str, line: str) -> Any:
        """The open item of a journal line.

        :raises ProblemError: there is none in the tenant's books.
        """
        model = self.sync.binding.ledger(ledger).item
        of_line = attribute(model, "general_ledger_line_id")
        key = key_of(line, of_line.type)
        query = select(model).where(of_line == key)
        if self.tenants.several:
            query = query.where(attribute(model, "tenant_id") == tenant)
        item = None if key is None else session.scalars(query).one_or_none()
        if item is None:
            raise not_there()
        return item

    def _ledger(self, name: str) -> str:
        """The ledger that is asked for.

        :raises ProblemError: the settings have no control account of it.
        """
        if name not in self.sync.settings.ledgers():
            known = ", ".join(self.sync.settings.ledgers())
            raise ProblemError(422, "Refused", f"These books have no {name} ledger.", f"They have: {known}.")
        return name
