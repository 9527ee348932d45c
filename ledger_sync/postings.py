"""Documents that no posted entry mentions, posted by the host's poster, each in a transaction of its own.

The entry must be posted and must name the document, so that nobody posts it again. A document that the poster raises
on, or posts wrongly, is recorded, and the rest goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import inspect, select
from sqlalchemy.exc import DBAPIError

from ledger_sync import segments
from ledger_sync.binding import Document, Ledger, aliased, attribute
from ledger_sync.dialects import fault_of
from ledger_sync.errors import EntryError
from ledger_sync.failures import in_short
from ledger_sync.mentions import mentioned, unposted
from ledger_sync.planning import dated
from ledger_sync.segments import FencedError, Segment, StoppedError
from ledger_sync.workbench import Workbench, key_from_text

DOCUMENTS_AT_ONCE: Final = 500


class Postings:
    """Has one run's documents posted. ``between`` is told of each with the seconds that it took."""

    def __init__(self, bench: Workbench, between: Callable[[Segment, float], None]) -> None:
        self.bench = bench
        self.between = between

    def step(self, segment: Segment) -> Segment:
        """Some of a segment's documents."""
        ledger = self.bench.ledger(segment)
        document = ledger.document(segment.document or "")
        assert document is not None
        ids = self.bench.retried(self._next, segment, ledger, document)
        for document_id in ids:
            began = time.monotonic()
            try:
                segment = self.bench.retried(self._post, segment, ledger, document, document_id)
            except (FencedError, StoppedError):
                raise
            except Exception as error:
                if isinstance(error, DBAPIError) and fault_of(error) != "data":
                    raise
                segment = self.bench.retried(self._record, segment, ledger, document, document_id, error)
                self.bench.refuse_too_many()
            self.between(segment, time.monotonic() - began)
        if len(ids) == DOCUMENTS_AT_ONCE:
            return segment
        return self.bench.retried(self._close, segment)

    def _close(self, segment: Segment) -> Segment:
        with self.bench.batches.connected() as connection:
            return self.bench.saved(connection, segment, time.monotonic(), done=True)

    def _next(self, segment: Segment, ledger: Ledger, document: Document) -> list[Any]:
        bench, model = self.bench, document.model
        key = attribute(model, "id")
        query = (
            select(key)
            .where(attribute(model, "tenant_id") == segment.tenant_id)
            .where(*unposted(bench.binding, bench.settings, ledger, document, model), *dated(bench.scope, document))
            .order_by(key)
            .limit(DOCUMENTS_AT_ONCE)
        )
        if segment.cursor is not None:
            query = query.where(key > key_from_text(model, segment.cursor))
        with bench.batches.connected(commit=False) as connection:
            return list(connection.scalars(query))

    def _post(self, segment: Segment, ledger: Ledger, document: Document, document_id: Any) -> Segment:
        """Have the host post one document, unless somebody has posted it meanwhile."""
        began = time.monotonic()
        bench, model = self.bench, document.model
        with bench.batches.transaction() as session:
            connection = bench.batches.connection(session, bench.binding.run)
            segments.check_in(connection, bench.binding, bench.run_id)
            its_own = select(model).where(attribute(model, "id") == document_id).with_for_update(of=model)
            found = session.scalars(its_own).one_or_none()
            alias = aliased(model)
            is_posted = (
                select(mentioned(bench.binding, bench.settings, ledger, document, alias))
                .select_from(alias)
                .where(attribute(alias, "id") == document_id)
            )
            books = bench.batches.connection(session, model)
            if found is None or books.scalar(is_posted):
                return bench.saved(connection, segment, began, cursor=str(document_id), processed=1)
            assert bench.options.poster is not None
            entry = bench.options.poster(session, found)
            if entry is None:
                left = {f"{document.name} left by the poster": 1}
                return bench.saved(connection, segment, began, cursor=str(document_id), processed=1, found=left)
            session.add(entry)
            session.flush()
            if not books.scalar(is_posted):
                voucher = str(getattr(entry, "voucher_number", inspect(entry).identity))
                raise EntryError(
                    voucher,
                    f"from the poster is not posted, or does not name {document.name} {document_id} as its source",
                    "Post it, and set source_type and source_id, or a link on the control line.",
                )
            return bench.saved(connection, segment, began, cursor=str(document_id), processed=1, synced=1)

    def _record(
        self, segment: Segment, ledger: Ledger, document: Document, document_id: Any, error: Exception
    ) -> Segment:
        """Note a document that could not be posted, and go past it in the same transaction."""
        bench = self.bench
        with bench.writing() as connection:
            named = {"tenant_id": segment.tenant_id, "run_id": bench.run_id}
            bench.writer.failures.record_document(connection, ledger, document.name, document_id, error, **named)
            return bench.saved(
                connection,
                segment,
                time.monotonic(),
                cursor=str(document_id),
                processed=1,
                errors=1,
                last_error=in_short(error),
            )
