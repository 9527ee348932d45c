"""Runs followed live: one loop reads the tables of the runs, and tells each tenant's room what has changed.

Every web process follows by itself, so nothing but the database is needed between them. A socket is in the room of its
principal's own tenant and in no other, whatever it asks for, and is ended when its token is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Final

import socketio
from socketio.exceptions import ConnectionRefusedError as RefusedError
from sqlalchemy.orm import Session

from ledger_sync import ALL_TENANTS, Progress, RunReport
from ledger_sync.contrib.web.auth import Authenticate, Principal, principal_of
from ledger_sync.contrib.web.books import Books
from ledger_sync.contrib.web.crew import Crew
from ledger_sync.contrib.web.payloads import Payload, Seen, look, payload_of
from ledger_sync.contrib.web.problems import ProblemError
from ledger_sync.contrib.web.tenants import Tenants
from ledger_sync.errors import RunStateError
from ledger_sync.models.types import utc_now
from ledger_sync.progress import Told

log = logging.getLogger("ledger_sync")

ADOPT_SECONDS: Final = 5.0
"""How often runs that have died are looked for."""

RECHECK_SECONDS: Final = 60.0
"""How often a socket's token is shown to the host again."""

NEWER_MAX: Final = 100
"""So many runs that began since the last look are followed up."""

OVER: Final = frozenset({"completed", "completed_with_errors", "cancelled"})
"""States that no run comes back from."""


def event_of(state: str) -> str:
    """The event that a payload goes out by."""
    if state in OVER:
        return "sync_complete"
    return "sync_error" if state == "failed" else "sync_progress"


def ids_of(runs: Iterable[RunReport]) -> set[int]:
    """The ids of runs that have a row."""
    return {run.run_id for run in runs if run.run_id is not None}


class _Followed:
    """One run: what was told of it last, and what is to be told now."""

    def __init__(self) -> None:
        self.told: list[Progress] = []
        self.state = ""
        self._teller = Told(self.told.append, 0.0, "raise")
        self._last: tuple[int, str] | None = None

    def news(self, seen: Seen) -> list[Progress]:
        """The snapshots to tell, among them those of stages that were over between two looks."""
        self.told.clear()
        present = (seen.snapshot.sequence, seen.snapshot.state)
        self.state = seen.snapshot.state
        if present != self._last:
            self._last = present
            self._teller.tell(seen.snapshot, seen.stages)
        return list(self.told)


class Live:
    """The Socket.IO server, and the loop behind it.

    :param origins: pages of other origins that may connect; none unless given.
    :param manager: a python-socketio client manager, of Redis say.
    :param seconds: how often the tables of the runs are read while somebody watches.
    """

    def __init__(
        self,
        books: Books,
        tenants: Tenants,
        authenticate: Authenticate,
        crew: Crew,
        *,
        origins: Iterable[str],
        manager: Any,
        seconds: float,
    ) -> None:
        self.books = books
        self.tenants = tenants
        self.authenticate = authenticate
        self.crew = crew
        self.seconds = seconds
        # None lets in pages of the application's own origin; an empty list would let in all
        self.server = socketio.AsyncServer(
            async_mode="asgi", cors_allowed_origins=list(origins) or None, client_manager=manager
        )
        self.server.on("connect", self._connect)
        self.server.on("disconnect", self._disconnect)
        self.server.on("join_vendor_room", self._join)
        self._rooms: dict[str, str] = {}
        self._guards: dict[str, asyncio.Task[None]] = {}
        self._followed: dict[int, _Followed] = {}
        self._newest = 0
        self._woken = asyncio.Event()

    # -- sockets ---------------------------------------------------------------------------------------

    async def _connect(self, sid: str, environ: Any, auth: Any = None) -> None:
        token = auth.get("token") if isinstance(auth, dict) else None
        try:
            principal = await principal_of(self.authenticate, token if isinstance(token, str) else "")
        except ProblemError as problem:
            raise RefusedError(problem.detail, problem.body) from None
        await self.server.save_session(sid, {"principal": principal})
        self._guards[sid] = asyncio.create_task(self._guard(sid, str(token), principal))

    async def _disconnect(self, sid: str, reason: Any = None) -> None:
        self._rooms.pop(sid, None)
        if (guard := self._guards.pop(sid, None)) is not None:
            guard.cancel()

    async def _guard(self, sid: str, token: str, principal: Principal) -> None:
        """End a socket when its token is nobody's any more."""
        while True:
            left = RECHECK_SECONDS
            if principal.expires_at is not None:
                left = min(left, (principal.expires_at - utc_now()).total_seconds())
            await asyncio.sleep(max(left, 0.0))
            try:
                principal = await principal_of(self.authenticate, token)
            except ProblemError:
                break
            except Exception:
                log.exception("Ledger sync: a token could not be shown to the host again")
                break
            if self._rooms.get(sid) not in {None, *(self.tenants.room(one) for one in self.tenants.of(principal))}:
                break
        self._guards.pop(sid, None)  # whose end would cancel this very task
        await self.server.emit("session_expired", {}, to=sid)
        await self.server.disconnect(sid)

    async def _join(self, sid: str, asked: Any = None) -> dict[str, Any]:
        principal: Principal = (await self.server.get_session(sid))["principal"]
        wanted = asked.get("tenant") if isinstance(asked, dict) else None
        try:
            tenant = self.tenants.own(principal, wanted)
        except ProblemError as problem:
            return {"problem": problem.body}
        room = self.tenants.room(tenant)
        if (left := self._rooms.get(sid)) is not None:
            await self.server.leave_room(sid, left)
        await self.server.enter_room(sid, room)
        self._rooms[sid] = room
        self._woken.set()

        def latest(session: Session) -> Payload | None:
            runs = self.books.sync.runs(session, self.tenants.given(tenant), limit=20)
            found = next((run.run_id for run in runs if run.kind == "backfill"), None)
            return None if found is None else payload_of(self.books.sync, session, found, self.tenants.given(tenant))

        present = await self.books.read(latest)
        if present is not None:
            await self._send(present, to=sid)
        return {"room": self.tenants.shown(tenant), "syncId": None if present is None else present.sync_id}

    async def _send(self, payload: Payload, to: str) -> None:
        await self.server.emit(event_of(payload.state), payload.model_dump(mode="json", by_alias=True), to=to)

    # -- the loop --------------------------------------------------------------------------------------

    def follow(self, run_id: int) -> None:
        """Look at a run soon."""
        self._followed.setdefault(run_id, _Followed())
        self._woken.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        failing = False
        adopted = -ADOPT_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            try:
                if loop.time() - adopted >= ADOPT_SECONDS:
                    adopted = loop.time()
                    await self.crew.adopt()
                if self._rooms:
                    await self._look()
                failing = False
            except Exception:
                if not failing:
                    log.exception("Ledger sync: the runs cannot be followed for the moment")
                failing = True
            self._woken.clear()
            watched = self.seconds if self._rooms else ADOPT_SECONDS
            try:
                await asyncio.wait_for(self._woken.wait(), ADOPT_SECONDS if failing else watched)
            except TimeoutError:
                continue
            await asyncio.sleep(self.seconds / 4)  # several that wake it at once are told together

    async def _look(self) -> None:
        sync, watched = self.books.sync, set(self._rooms.values())

        def seen(session: Session) -> list[Seen]:
            ids = ids_of(sync.runs(session, ALL_TENANTS, limit=None, running=True))
            for newest in ids_of(sync.runs(session, ALL_TENANTS, limit=1)):
                if self._newest and newest > self._newest:
                    ids |= ids_of(sync.runs(session, ALL_TENANTS, limit=min(newest - self._newest, NEWER_MAX)))
                self._newest = newest
            found = []
            for run_id in sorted({*ids, *self._followed}):
                try:
                    found.append(look(sync, session, run_id))
                except RunStateError:  # a repair, or a row that somebody has taken away
                    self._followed.pop(run_id, None)
            return found

        for one in await self.books.read(seen):
            run_id = one.snapshot.run_id or 0
            followed = self._followed.setdefault(run_id, _Followed())
            room = self.tenants.room_of_run(one.report)
            news = followed.news(one)
            if room in watched:
                for snapshot in news:
                    await self._send(one.payload(snapshot), to=room)
            if followed.state in OVER:
                self._followed.pop(run_id, None)
