"""Two applications with a client manager of Redis between them: the host's events pass, and ours are told once."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
import socketio
from redis import Redis
from redis.exceptions import RedisError

from tests.web.places import Place, brief, listening
from tests.web.test_web_live import STAGES, completed, connected, run

# python-socketio has no way to close a manager: its connection ends with the process that has it
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

Managers = Callable[..., socketio.AsyncRedisManager]


@pytest.fixture
def managers() -> Iterator[Managers]:
    """Makes managers that hear one another and nobody else."""
    url = os.environ.get("LEDGER_SYNC_TEST_REDIS_URL", "")
    if not url:
        pytest.skip("LEDGER_SYNC_TEST_REDIS_URL names no Redis server")
    with Redis.from_url(url) as client:
        try:
            client.ping()
        except RedisError:
            pytest.skip("no Redis server answers at LEDGER_SYNC_TEST_REDIS_URL")
        channel = f"ledger-sync tests {uuid4()}"

        def make(*, write_only: bool = False) -> socketio.AsyncRedisManager:
            return socketio.AsyncRedisManager(url, channel=channel, write_only=write_only)

        yield make
    gc.collect()  # what is left open is found while this test's warnings are let pass


def test_each_client_at_either_server_is_told_each_event_once_and_nobody_another_tenants(
    place: Place, managers: Managers
) -> None:
    async def follow(*addresses: str) -> None:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connected(address, f"token-of-{tenant}"))
                for address in addresses
                for tenant in ("acme", "beta")
            ]
            for client in clients:
                client.socket.on("notice", lambda said, told=client.told: told.append(("notice", said)))
                await client.join()
            for tenant in ("acme", "beta"):
                await asyncio.to_thread(place.sync.backfill, place.factory, tenant_id=tenant)
            for client in clients:
                await client.until(completed)
            # the host's own events, which alone go through Redis, come after all that may have gone there before
            host = managers(write_only=True)
            for tenant in ("acme", "beta"):
                await host.emit("notice", {"tenant": tenant}, room=f"tenant {tenant}")
            for client in clients:
                await client.until(lambda client: client.told[-1][0] == "notice")
                own = client.joined["room"]
                assert {payload["tenant"] for _, payload in client.told} == {own}
                assert list(dict.fromkeys(payload["step"] for payload in client.newest())) == STAGES
                told = Counter(
                    (event, payload["snapshot"]["sequence"] if "snapshot" in payload else None)
                    for event, payload in client.told
                )
                assert set(told.values()) == {1}, told

    one, other = (place.app(runs_at_once=0, manager=managers()) for _ in range(2))
    with listening(one) as first, listening(other) as second:
        run(follow(first, second))


def test_a_socket_ends_with_its_token_and_no_other_does(place: Place, managers: Managers) -> None:
    async def follow(*addresses: str) -> None:
        brief("token-brief-at-one", 1.0)
        async with (
            connected(addresses[0], "token-brief-at-one") as client,
            connected(addresses[1], "token-of-acme") as other,
        ):
            await client.join()
            await other.join()
            await client.until(lambda client: not client.socket.connected)
            assert client.told == [("session_expired", {})]
            assert (other.socket.connected, other.told) == (True, [])

    one, other = (place.app(runs_at_once=0, manager=managers()) for _ in range(2))
    with listening(one) as first, listening(other) as second:
        run(follow(first, second))
