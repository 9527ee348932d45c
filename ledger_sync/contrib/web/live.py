"""Runs followed live: one loop reads the tables of the runs, and tells each tenant's room what has changed.

Every web process follows by itself, so nothing but the database is needed between them. A socket is in the room of its
principal's own tenant and in no other, whatever it asks for, and is ended when its token is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import socketio
from socketio.exceptions import ConnectionRefusedError as RefusedError
from sqlalchemy.orm import Session

from ledger_sync import ALL_TENANTS, Progress, RunReport
from ledger_sync.contrib.web.auth import Authenticate, Principal, principal_of, refuse_without
from ledger_sync.contrib.web.books import Books
from ledger_sync.contrib.web.crew import Crew
from ledger_sync.contrib.web.payloads import Payload, Seen, look, payload_of
from ledger_sync.contrib.web.problems import ProblemError
from ledger_sync.contrib.web.tenants import Tenants
from ledger_sync.errors import RunStateError
from ledger_sync.logs import log
from ledger_sync.models.types import utc_now
from ledger_sync.progress import Told

ADOPT_SECONDS: Final = 5.0
"""How often runs that have died are looked for."""

RECHECK_SECONDS: Final = 60.0
"""How often a socket's token is shown to the host again."""

LATEST_AMONG: Final = 5
"""Among so many of the newest runs, some of which may be repairs, is the sync that a newcomer is told of."""

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
    """One run: what was told of it last, and what is to be told now.

    :param from_its_start: whether it began under our eyes, so that stages which it has passed are to be told as well.
    """

    def __init__(self, *, from_its_start: bool) -> None:
        self._from_its_start = from_its_start
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
            if self._last is None and not self._from_its_start:
                self._teller.joined(seen.snapshot)
                self.told.append(seen.snapshot)
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
        self._origins = frozenset(origins)
        self.server = socketio.AsyncServer(
            async_mode="asgi", cors_allowed_origins=self._lets_in, client_manager=manager
        )
        self.server.on("connect", self._connect)
        self.server.on("disconnect", self._disconnect)
        self.server.on("join_vendor_room", self._join)
        self._rooms: dict[str, str] = {}
        self._guards: dict[str, asyncio.Task[None]] = {}
        self._followed: dict[int, _Followed] = {}
        self._newest: int | None = None
        self._woken: asyncio.Event | None = None
        self._joining: set[str] = set()

    # -- sockets ---------------------------------------------------------------------------------------

    def _lets_in(self, origin: str, environ: Any) -> bool:
        """Whether pages of an origin may connect: those that were named, and the application's own."""
        # engineio knows nothing of the server's own TLS; of several proxies the one before the page is named first
        asked = environ.get("HTTP_X_FORWARDED_PROTO", environ["asgi.scope"].get("scheme", "http"))
        scheme = asked.split(",")[0].strip().replace("ws", "http")
        return origin in self._origins or origin == f"{scheme}://{environ.get('HTTP_HOST', '')}"

    async def _shown(self, token: str) -> Principal:
        """Who has a token, and may see.

        :raises ProblemError: nobody, or they may not.
        """
        principal = await principal_of(self.authenticate, token)
        refuse_without("read", principal)
        return principal

    async def _connect(self, sid: str, environ: Any, auth: Any = None) -> None:
        token = auth.get("token") if isinstance(auth, dict) else None
        token = token if isinstance(token, str) else ""
        try:
            principal = await self._shown(token)
        except ProblemError as problem:
            raise RefusedError(problem.detail, problem.body) from None
        await self.server.save_session(sid, {"token": token})
        self._guards[sid] = asyncio.create_task(self._guard(sid, token, principal))

    async def _disconnect(self, sid: str, reason: Any = None) -> None:
        self._rooms.pop(sid, None)
        if (guard := self._guards.pop(sid, None)) is not None:
            guard.cancel()

    async def _guard(self, sid: str, token: str, principal: Principal) -> None:
        """End a socket when its token is nobody's any more, or its room is not theirs."""
        while True:
            left = RECHECK_SECONDS
            if principal.expires_at is not None:
                left = min(left, (principal.expires_at - utc_now()).total_seconds())
            await asyncio.sleep(max(left, 0.0))
            try:
                principal = await self._shown(token)
            except ProblemError as problem:
                if problem.status != 503 or principal.expired:
                    break
                continue
            if self._rooms.get(sid) not in {None, *(self.tenants.room(one) for one in self.tenants.of(principal))}:
                break
        self._guards.pop(sid, None)  # whose end would cancel this very task
        await self.server.emit("session_expired", {}, to=sid)
        await self.server.disconnect(sid)

    async def _join(self, sid: str, asked: Any = None) -> dict[str, Any]:
        if sid in self._joining:
            again = ProblemError(429, "Joining already", "This socket is about to join.", "Wait for the answer.")
            return {"problem": again.body}
        self._joining.add(sid)
        try:
            return await self._joined(sid, asked)
        except ProblemError as problem:
            return {"problem": problem.body}
        except Exception:
            log.exception("Ledger sync: a room could not be joined")
            return {"problem": ProblemError(503, "Failed", "The room could not be joined.", "Try again.").body}
        finally:
            self._joining.discard(sid)

    async def _joined(self, sid: str, asked: Any) -> dict[str, Any]:
        # the host is asked again: who has lost a tenant since they connected has lost its room
        principal = await self._shown((await self.server.get_session(sid))["token"])
        tenant = self.tenants.own(principal, asked.get("tenant") if isinstance(asked, dict) else None)
        room = self.tenants.room(tenant)
        if (left := self._rooms.pop(sid, None)) is not None:
            await self.server.leave_room(sid, left)
        if self._newest is None:  # the first to watch: every run after those of this moment begins under their eyes
            newest = await self.books.read(self._newest_run)
            self._newest = newest if self._newest is None else self._newest
        if sid not in self._guards:  # it has gone meanwhile
            return {}
        self._rooms[sid] = room
        await self.server.enter_room(sid, room)
        if sid not in self._guards:
            self._rooms.pop(sid, None)
            return {}

        def latest(session: Session) -> Payload | None:
            runs = self.books.sync.runs(session, tenant, limit=LATEST_AMONG)
            found = next((run.run_id for run in runs if run.kind == "backfill"), None)
            return None if found is None else payload_of(self.books.sync, session, found, tenant)

        present = await self.books.read(latest)
        if present is not None:
            await self._send(present, to=sid)
            if present.state not in OVER:
                run_id = int(present.sync_id)
                self.follow(run_id, from_its_start=self._newest is not None and run_id > self._newest)
        self._wake()
        return {"room": self.tenants.shown(tenant), "syncId": None if present is None else present.sync_id}

    async def _send(self, payload: Payload, to: str) -> None:
        told = payload.model_dump(mode="json", by_alias=True)
        # every process tells its own sockets, so that a manager has nothing to pass on to others
        await self.server.emit(event_of(payload.state), told, to=to, ignore_queue=True)

    # -- the loop --------------------------------------------------------------------------------------

    def follow(self, run_id: int, *, from_its_start: bool = True) -> None:
        """Look at a run soon."""
        if run_id not in self._followed:
            self._followed[run_id] = _Followed(from_its_start=from_its_start)
        self._wake()

    def _wake(self) -> None:
        if self._woken is not None:
            self._woken.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        self._woken = asyncio.Event()
        failing = False
        loop = asyncio.get_running_loop()
        adopted = rested = -ADOPT_SECONDS
        while True:
            try:
                if loop.time() - adopted >= ADOPT_SECONDS:
                    adopted = loop.time()
                    await self.crew.adopt()
                if self._rooms:
                    resting = loop.time() - rested >= ADOPT_SECONDS
                    rested = loop.time() if resting else rested
                    await self._look(resting=resting)
                else:  # whoever joins next is told of the present, and not of what nobody watched
                    self._newest = None
                    self._followed.clear()
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

    async def _look(self, *, resting: bool) -> None:
        """Read what has changed, and tell the rooms.

        :param resting: whether to look at runs that are paused or have failed, too, which seldom change.
        """
        sync = self.books.sync
        ids = {n for n, one in self._followed.items() if resting or one.state in {"", "running"}}
        known = self._newest

        def seen(session: Session) -> tuple[int, set[int], list[Seen]]:
            newest = self._newest_run(session)
            new: set[int] = set()
            if known is not None and newest > known:
                lately = ids_of(sync.runs(session, ALL_TENANTS, limit=min(newest - known, NEWER_MAX)))
                new = {run_id for run_id in lately if run_id > known}
            found = []
            for run_id in sorted({*ids, *new, *ids_of(sync.runs(session, ALL_TENANTS, limit=None, running=True))}):
                # a repair, or a row that somebody has taken away, is not followed
                with suppress(RunStateError):
                    found.append(look(sync, session, run_id))
            return newest, new, found

        self._newest, new, found = await self.books.read(seen)
        present = {one.snapshot.run_id or 0: one for one in found}
        for run_id in ids - present.keys():
            self._followed.pop(run_id, None)
        for run_id, one in present.items():
            followed = self._followed.setdefault(run_id, _Followed(from_its_start=run_id in new))
            room = self.tenants.room_of_run(one.report)
            for snapshot in followed.news(one):
                if room in self._rooms.values():
                    await self._send(one.payload(snapshot), to=str(room))
            if followed.state in OVER:
                self._followed.pop(run_id, None)

    def _newest_run(self, session: Session) -> int:
        return max(ids_of(self.books.sync.runs(session, ALL_TENANTS, limit=1)), default=0)
