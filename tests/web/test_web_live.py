"""Runs followed over Socket.IO: every stage change to everybody who may see it, and to nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import socketio
from socketio.exceptions import ConnectionError as RefusedError

from ledger_sync.contrib.web import Principal, create_app, live
from tests.budget import at_length
from tests.web.places import TOKENS, Place, brief, listening, with_tls

EVENTS = ("sync_progress", "sync_complete", "sync_error", "session_expired")
SECONDS_MAX = 120


class Client:
    """A python-socketio client that remembers what it is told."""

    def __init__(self, token: str, transports: list[str] | None = None) -> None:
        self.token = token
        self.transports = transports
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.joined: dict[str, Any] = {}
        self.socket = socketio.AsyncClient(reconnection=False)
        for event in EVENTS:
            self.socket.on(event, self._hear(event))

    def _hear(self, event: str) -> Callable[[Any], None]:
        return lambda payload: self.told.append((event, payload))

    async def connect(self, address: str) -> None:
        await self.socket.connect(address, auth={"token": self.token}, transports=self.transports)

    async def join(self, asked: Any = None) -> dict[str, Any]:
        self.joined = await self.socket.call("join_vendor_room", asked if asked is not None else {})
        return self.joined

    async def until(self, done: Callable[[Client], bool]) -> None:
        while not done(self):
            await asyncio.sleep(0.02)

    def newest(self) -> list[dict[str, Any]]:
        """The payloads in order, without those that are older than what was known."""
        known, kept = -1, []
        for event, payload in self.told:
            if event.startswith("sync_") and payload["snapshot"]["sequence"] > known:
                known = payload["snapshot"]["sequence"]
                kept.append(payload)
        return kept


def completed(client: Client) -> bool:
    return any(event == "sync_complete" for event, _ in client.told)


@asynccontextmanager
async def connected(address: str, token: str, transports: list[str] | None = None) -> AsyncIterator[Client]:
    client = Client(token, transports)
    await client.connect(address)
    try:
        yield client
    finally:
        # this client would otherwise wait for its outstanding poll, which the server ends 45 seconds later
        await client.socket.eio.disconnect(abort=transports == ["polling"])


def run(work: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(SECONDS_MAX):
            await work

    asyncio.run(main())


STAGES = ["checking", "customer_invoices", "vendor_invoices", "expenses", "settling", "verifying", "completed"]


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], None])
def test_a_run_is_followed_from_its_start_to_its_end(place: Place, transports: list[str] | None) -> None:
    async def follow(address: str) -> None:
        async with connected(address, "token-of-acme", transports) as client:
            assert await client.join() == {"room": "acme", "syncId": None}
            # whoever does the work: here it is somebody else
            report = await asyncio.to_thread(place.sync.backfill, place.factory, tenant_id="acme")
            await client.until(completed)
        told = client.newest()
        assert list(dict.fromkeys(payload["step"] for payload in told)) == STAGES
        assert [payload["snapshot"]["sequence"] for payload in told] == sorted(
            {payload["snapshot"]["sequence"] for payload in told}
        )
        last = told[-1]
        assert (last["state"], last["progress"], last["clean"]) == ("completed", 100.0, True)
        assert last["stats"] == {"total": report.processed, "synced": report.synced, "skipped": 1, "errors": 0}
        assert all(payload["progress"] < 100 for payload in told[:-1])

    with listening(place.app(runs_at_once=0)) as address:
        run(follow(address))


@pytest.mark.parametrize("when", ["before another joins", "after another joined"])
def test_a_run_that_begins_and_ends_between_two_looks_is_told_from_its_start(place: Place, when: str) -> None:
    async def follow(address: str) -> None:
        async with connected(address, "token-of-acme") as client, connected(address, "token-of-acme") as other:
            await client.join()
            if when == "after another joined":
                await other.join()
            run_id = await asyncio.to_thread(place.sync.start, place.factory, tenant_id="acme")
            while (await asyncio.to_thread(place.sync.advance, place.factory, run_id, 0.0)).stage == "checking":
                pass
            if when == "before another joins":
                await other.join()
            await asyncio.to_thread(place.sync.advance, place.factory, run_id)
            await client.until(completed)
            await other.until(completed)
        assert list(dict.fromkeys(payload["step"] for payload in client.newest())) == STAGES

    # the loop looks half a second after it is woken, which is later than all that
    with listening(place.app(runs_at_once=0, follow_seconds=2.0)) as address:
        run(follow(address))


def test_who_joins_gets_the_present_snapshot_once(place: Place) -> None:
    report = place.sync.backfill(place.factory, tenant_id="acme")

    async def follow(address: str) -> None:
        async with connected(address, "token-of-acme") as client:
            assert await client.join() == {"room": "acme", "syncId": str(report.run_id)}
            await client.until(completed)
            await asyncio.sleep(0.3)
            assert [event for event, _ in client.told] == ["sync_complete"]

    with listening(place.app(runs_at_once=0)) as address:
        run(follow(address))


def test_whatever_somebody_asks_for_they_join_their_own_tenants_room(place: Place) -> None:
    async def follow(address: str) -> None:
        async with AsyncExitStack() as stack:
            acme, beta, both = [
                await stack.enter_async_context(connected(address, f"token-of-{whose}"))
                for whose in ("acme", "beta", "both")
            ]
            for asked in ({"tenant": "beta"}, {"room": "tenant beta"}, "beta", ["beta"], 7):
                assert (await acme.join(asked))["room"] == "acme"
            assert (await beta.join({"tenant": "acme"}))["room"] == "beta"
            assert (await both.join({"tenant": "beta"}))["room"] == "beta"
            await asyncio.to_thread(place.sync.backfill, place.factory, tenant_id="beta")
            await beta.until(completed)
            await both.until(completed)
            assert acme.told == []
            assert (await both.join({"tenant": "acme"}))["room"] == "acme"
            before = len(both.told)
            await asyncio.to_thread(place.sync.backfill, place.factory, tenant_id="beta")
            await beta.until(lambda client: sum(event == "sync_complete" for event, _ in client.told) == 2)
            assert len(both.told) == before
            assert acme.told == []

    with listening(place.app(runs_at_once=0)) as address:
        run(follow(address))


@pytest.mark.parametrize("auth", [None, {}, {"token": ""}, {"token": 7}, {"token": "token-expired"}, "token-of-acme"])
def test_who_has_no_valid_token_does_not_connect(place: Place, auth: Any) -> None:
    async def refused(address: str) -> None:
        client = socketio.AsyncClient(reconnection=False)
        said: list[Any] = []
        client.on("connect_error", said.append)
        with pytest.raises(RefusedError):
            await client.connect(address, auth=auth)
        assert said[0]["data"]["remedy"]
        await client.disconnect()

    with listening(place.app(runs_at_once=0)) as address:
        run(refused(address))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_the_application_s_own_page_connects_with_tls_and_without(place: Place, scheme: str, transport: str) -> None:
    async def connect(address: str) -> None:
        client = Client("token-of-acme", [transport])
        await client.socket.connect(
            address,
            {"Origin": address.replace("http", scheme, 1)},
            auth={"token": client.token},
            transports=client.transports,
        )
        assert (await client.join())["room"] == "acme"
        await client.socket.eio.disconnect(abort=True)

    app = place.app(runs_at_once=0)
    with listening(with_tls(app) if scheme == "https" else app) as address:
        run(connect(address))


def test_a_socket_ends_with_its_token(place: Place) -> None:
    async def follow(address: str) -> None:
        brief("token-brief", 1.0)
        async with connected(address, "token-brief") as client:
            await client.join()
            await client.until(lambda client: ("session_expired", {}) in client.told and not client.socket.connected)

    with listening(place.app(runs_at_once=0)) as address:
        run(follow(address))


def test_a_socket_outlasts_a_host_that_cannot_be_asked_for_a_moment_and_nobody_new_connects(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "RECHECK_SECONDS", 0.05)
    asked = 0
    answers = True

    def authenticate(token: str) -> Principal | None:
        nonlocal asked
        asked += 1
        if not answers:
            raise ConnectionError("at 10.0.0.5")
        return TOKENS.get(token)

    async def follow(address: str) -> None:
        nonlocal answers
        async with connected(address, "token-of-acme") as client:
            await client.join()
            answers = False
            before = asked
            await client.until(lambda _: asked > before + 2)
            refused = socketio.AsyncClient(reconnection=False)
            said: list[Any] = []
            refused.on("connect_error", said.append)
            with pytest.raises(RefusedError):
                await refused.connect(address, auth={"token": "token-of-acme"})
            assert said[0]["data"]["status"] == 503
            await refused.disconnect()
            assert (await client.join())["problem"]["status"] == 503
            answers = True
            assert (await client.join())["room"] == "acme"
            assert client.told == []

    with listening(create_app(place.sync, place.factory, authenticate, runs_at_once=0)) as address:
        run(follow(address))


def test_who_may_not_see_does_not_connect_and_who_has_lost_a_tenant_does_not_join(place: Place) -> None:
    async def follow(address: str) -> None:
        TOKENS["token-blind"] = Principal("x", ("acme",), frozenset())
        with pytest.raises(RefusedError):
            await Client("token-blind").connect(address)
        TOKENS["token-changing"] = Principal("x", ("acme", "beta"))
        async with connected(address, "token-changing") as client:
            assert (await client.join({"tenant": "beta"}))["room"] == "beta"
            TOKENS["token-changing"] = Principal("x", ("acme",))
            assert (await client.join({"tenant": "beta"}))["room"] == "acme"
            TOKENS["token-changing"] = Principal("x", ("acme",), frozenset())
            assert (await client.join())["problem"]["status"] == 403

    with listening(place.app(runs_at_once=0)) as address:
        run(follow(address))


def test_what_nobody_watched_is_not_told_to_who_comes_later(place: Place) -> None:
    async def follow(address: str) -> None:
        async with connected(address, "token-of-acme") as early:
            await early.join()
        for _ in range(3):
            report = await asyncio.to_thread(place.sync.backfill, place.factory, tenant_id="acme")
        async with connected(address, "token-of-acme") as client:
            assert (await client.join())["syncId"] == str(report.run_id)
            await asyncio.sleep(0.5)
            assert [payload["syncId"] for _, payload in client.told] == [str(report.run_id)]

    with listening(place.app(runs_at_once=0)) as address:
        run(follow(address))


def test_who_joins_in_mid_run_is_not_told_of_stages_that_are_passed(place: Place) -> None:
    run_id = place.sync.start(place.factory, tenant_id="acme")
    while place.sync.advance(place.factory, run_id, budget_seconds=0.0).stage == "checking":
        pass

    async def follow(address: str) -> None:
        async with connected(address, "token-of-acme") as client:
            await client.join()
            await asyncio.sleep(0.3)
            await asyncio.to_thread(place.sync.advance, place.factory, run_id)
            await client.until(completed)
            steps = [payload["step"] for _, payload in client.told]
            assert "checking" not in steps
            assert [STAGES.index(step) for step in steps] == sorted(STAGES.index(step) for step in steps)

    with listening(place.app(runs_at_once=0)) as address:
        run(follow(address))


def test_a_failed_run_is_told_as_an_error(place: Place) -> None:
    run_id = place.sync.start(place.factory, tenant_id="acme", posting=True)

    async def follow(address: str) -> None:
        async with connected(address, "token-of-acme") as client:
            await client.join()
            with pytest.raises(Exception, match="poster"):
                await asyncio.to_thread(place.sync.advance, place.factory, run_id)
            await client.until(lambda client: any(event == "sync_error" for event, _ in client.told))
            assert "poster" in client.newest()[-1]["message"]

    with listening(place.app(runs_at_once=0)) as address:
        run(follow(address))


def test_two_servers_and_many_clients_see_every_stage_and_no_other_tenants(place: Place) -> None:
    """Clients of two tenants, at two servers that share nothing but the database; each does part of the work."""
    several = at_length(12, 200)

    async def follow(*addresses: str) -> None:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connected(addresses[n % 2], f"token-of-{('acme', 'beta')[n // 2 % 2]}"))
                for n in range(several)
            ]
            for client in clients:
                await client.join()
            workers = [
                threading.Thread(target=place.sync.backfill, args=(place.factory,), kwargs={"tenant_id": tenant})
                for tenant in ("acme", "beta")
            ]
            for worker in workers:
                worker.start()
                await asyncio.to_thread(worker.join)
            for client in clients:
                await client.until(completed)
            for client in clients:
                told = client.newest()
                assert {payload["tenant"] for payload in told} == {client.joined["room"]}
                assert list(dict.fromkeys(payload["step"] for payload in told)) == STAGES

    with listening(place.app(runs_at_once=0)) as one, listening(place.app(runs_at_once=0)) as other:
        run(follow(one, other))
