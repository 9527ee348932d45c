"""Runs that are started from the console and worked on by a job queue's workers, followed all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger_sync.contrib.queues import RunQueue, Schedule
from tests.queues.inbox import Inbox
from tests.settlement_oracle import assert_settled
from tests.web.places import Place, listening
from tests.web.test_web_api import ACME, API, BETA, served, until_over
from tests.web.test_web_live import STAGES, completed, connected, run


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def queue(place: Place, inbox: Inbox) -> RunQueue:
    return inbox.queue(place.factory, place.sync, Schedule(slice_seconds=0.001, workers=1))


def test_what_the_console_starts_is_done_by_the_queues_workers(place: Place, inbox: Inbox, queue: RunQueue) -> None:
    with served(place.app(queue=queue)) as client:
        sync_id = client.post(f"{API}/sync-data", headers=ACME).json()["syncId"]
        (run,) = client.get(f"{API}/sync-data", headers=ACME).json()["runs"]
        assert (run["state"], run["actor"]) == ("running", "kari (queue)")
        again = client.post(f"{API}/sync-data", headers=ACME)
        assert (again.status_code, again.json()["syncId"]) == (409, sync_id)
        inbox.work(queue)
        assert client.post(f"{API}/sync-data/{sync_id}/pause", headers=ACME).status_code == 202
        inbox.work_all(queue)
        assert until_over(client, sync_id)["state"] == "paused"
        assert client.post(f"{API}/sync-data/{sync_id}/resume", headers=BETA).status_code == 404
        assert inbox.messages == []
        assert client.post(f"{API}/sync-data/{sync_id}/resume", headers=ACME).status_code == 202
        inbox.work_all(queue)
        told = until_over(client, sync_id)
        assert (told["state"], told["clean"], told["stats"]["synced"]) == ("completed", True, 7)
    with place.engine.connect() as connection:
        assert_settled(connection)


def test_a_run_of_the_queues_is_followed_from_its_start_to_its_end(place: Place, inbox: Inbox, queue: RunQueue) -> None:
    async def follow(address: str) -> None:
        async with connected(address, "token-of-acme") as client:
            await client.join()
            await asyncio.to_thread(queue.start, tenant_id="acme")
            await asyncio.to_thread(inbox.work_all, queue)
            await client.until(completed)
            assert list(dict.fromkeys(payload["step"] for payload in client.newest())) == STAGES

    with listening(place.app(queue=queue)) as address:
        run(follow(address))


def test_a_queue_that_is_down_is_an_answer_with_a_remedy_and_no_run(
    place: Place, inbox: Inbox, queue: RunQueue, caplog: Any
) -> None:
    inbox.answers = False
    with served(place.app(queue=queue)) as client:
        answer = client.post(f"{API}/sync-data", headers=ACME)
        assert answer.status_code == 503
        assert answer.json()["detail"] == "The job queue does not answer. Nothing was started."
        assert answer.json()["remedy"]
        assert client.get(f"{API}/sync-data", headers=ACME).json()["runs"] == []
    assert "the list does not answer" in caplog.text  # which is for the host alone
