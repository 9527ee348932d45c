"""What went wrong, as ``application/problem+json`` (RFC 9457): a title, what happened, and what to do next.

Errors of the library say all of it themselves. Whatever else is raised is told to the log, and to nobody outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from ledger_sync.contrib.queues import QueueUnreachableError
from ledger_sync.errors import LedgerSyncError, NotInTheBooksError, RunActiveError, RunStateError
from ledger_sync.logs import log
from ledger_sync.runs import is_passing


class ProblemError(Exception):
    """An answer other than the one that was asked for."""

    def __init__(
        self, status: int, title: str, detail: str, remedy: str | None = None, more: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.remedy = remedy
        self.more = dict(more or {})

    @property
    def body(self) -> dict[str, Any]:
        """The document."""
        told = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
        return {**told, **({} if self.remedy is None else {"remedy": self.remedy}), **self.more}


def problem_of(error: Exception) -> ProblemError | None:
    """What an error of the library, or of a database that is busy or lost, is to whoever asks over HTTP.

    None for any other, which is a fault.
    """
    if isinstance(error, LedgerSyncError):
        return _of_the_library(error)
    if is_passing(error):
        # not the statement of a driver's error, which has the books' own values
        log.warning("Ledger sync: the database is busy, or cannot be reached: %s", getattr(error, "orig", error))
        return ProblemError(503, "Busy", "The database is busy, or cannot be reached.", "Try again in a moment.")
    return None


def _of_the_library(error: LedgerSyncError) -> ProblemError:
    remedy: str | None = getattr(error, "remedy", None)
    detail = str(error) if remedy is None else str(error).removesuffix(remedy).strip()
    if isinstance(error, RunActiveError):
        follow = "Follow that one, or pause or cancel it."
        return ProblemError(409, "A sync is running already", detail, follow, {"syncId": str(error.run_id)})
    if isinstance(error, RunStateError):
        return ProblemError(409, "The sync cannot do that now", detail, remedy, {"syncId": str(error.run_id)})
    if isinstance(error, QueueUnreachableError):
        # where it is and what it said are the host's own business, and in the log
        log.error("Ledger sync: %s", error)
        return ProblemError(503, "No workers", "The job queue does not answer. Nothing was started.", "Try again soon.")
    if isinstance(error, NotInTheBooksError):
        return ProblemError(404, "Not in the books", detail, remedy)
    return ProblemError(422, "Refused", detail, remedy or "Change what is asked for.")


def not_there() -> ProblemError:
    """What nobody has, and what is another tenant's."""
    return ProblemError(404, "Not there", "There is no such thing in these books.", "Check the id and the tenant.")


def answered(problem: ProblemError) -> JSONResponse:
    """A problem as a response."""
    headers = {"Cache-Control": "no-store"}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.body, problem.status, headers, media_type="application/problem+json")
