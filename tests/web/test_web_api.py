"""What is asked over HTTP: runs started, steered and read; the proof; and nothing of another tenant's."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool, QueuePool

from ledger_sync import ALL_TENANTS, ConfigurationError, LedgerSync
from ledger_sync.contrib.web import Principal, create_app
from ledger_sync.contrib.web import app as web_app
from ledger_sync.contrib.web.auth import RIGHTS
from ledger_sync.contrib.web.operations import BODY_MAX
from ledger_sync.models import SupplierApplication, SyncRun
from tests import books
from tests.faults import STATES, DriverError
from tests.oracle import assert_synced
from tests.settlement_oracle import assert_settled
from tests.web.places import Place, authenticate, listening, with_tls

API = "/api/ledger"


def headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


ACME, BETA, BOTH = headers("token-of-acme"), headers("token-of-beta"), headers("token-of-both")
SETTLER = headers("token-to-settle")


@contextmanager
def served(app: Any) -> Iterator[httpx.Client]:
    """A client of the application, which is served on loopback."""
    with listening(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


@pytest.fixture
def client(place: Place) -> Iterator[httpx.Client]:
    with served(place.app()) as client:
        yield client


@pytest.fixture
def idle(place: Place) -> Iterator[httpx.Client]:
    """An application that leaves the work to others."""
    with served(place.app(runs_at_once=0)) as client:
        yield client


def until_over(client: httpx.Client, sync_id: str, token: dict[str, str] = ACME) -> dict[str, Any]:
    for _ in range(600):
        told: dict[str, Any] = client.get(f"{API}/sync-data/{sync_id}", headers=token).json()
        if told["state"] != "running":
            return told
        time.sleep(0.05)
    raise AssertionError(f"the run does not end: {told}")


def test_a_sync_is_started_answered_at_once_and_done_in_the_background(place: Place, client: httpx.Client) -> None:
    answer = client.post(f"{API}/sync-data", headers=ACME)
    assert answer.status_code == 202
    sync_id = answer.json()["syncId"]
    assert answer.json() == {
        "success": True,
        "message": "Data sync started. You will receive real-time updates.",
        "syncId": sync_id,
    }
    told = until_over(client, sync_id)
    with place.factory() as session:
        report = place.sync.report(session, int(sync_id))
    assert (told["state"], told["progress"], told["clean"]) == ("completed", 100.0, True)
    assert told["stats"] == {"total": report.processed, "synced": report.synced, "skipped": 1, "errors": 0}
    assert told["snapshot"]["skipped"] == {"manual": 1}
    assert [step["step"] for step in told["steps"]] == [stage.stage for stage in report.stages]
    assert {step["state"] for step in told["steps"]} == {"done"}
    assert (told["tenant"], told["step"], told["errors"]) == ("acme", "completed", [])
    (run,) = client.get(f"{API}/sync-data", headers=ACME).json()["runs"]
    assert (run["syncId"], run["actor"], run["synced"]) == (sync_id, "kari (console)", 7)
    with place.engine.connect() as connection:
        assert_settled(connection)


def test_filters_go_into_the_run(place: Place, client: httpx.Client) -> None:
    body = {"kinds": ["customer_invoices"], "since": "2026-01-01", "until": "2026-12-31", "dryRun": True}
    sync_id = client.post(f"{API}/sync-data", headers=ACME, json=body).json()["syncId"]
    told = until_over(client, sync_id)
    assert told["dryRun"] is True
    assert [step["step"] for step in told["steps"]] == ["checking", "customer_invoices"]
    assert told["stats"]["total"] == 0


def test_a_second_start_over_the_same_tenant_names_the_running_one(idle: httpx.Client) -> None:
    first = idle.post(f"{API}/sync-data", headers=ACME).json()["syncId"]
    second = idle.post(f"{API}/sync-data", headers=ACME)
    assert (second.status_code, second.json()["syncId"]) == (409, first)
    assert second.headers["content-type"] == "application/problem+json"
    assert idle.post(f"{API}/sync-data", headers=BETA).status_code == 202


def test_a_run_is_paused_resumed_and_cancelled(place: Place, idle: httpx.Client) -> None:
    sync_id = idle.post(f"{API}/sync-data", headers=ACME).json()["syncId"]
    run = f"{API}/sync-data/{sync_id}"
    assert idle.post(f"{run}/pause", headers=ACME).json()["command"] == "pause"
    place.sync.advance(place.factory, int(sync_id))
    assert idle.get(run, headers=ACME).json()["state"] == "paused"
    assert idle.post(f"{run}/resume", headers=ACME).json()["state"] == "running"
    assert idle.post(f"{run}/cancel", headers=ACME).json()["command"] == "cancel"
    place.sync.advance(place.factory, int(sync_id))
    assert idle.get(run, headers=ACME).json()["state"] == "cancelled"
    for verb in ("pause", "resume"):
        refused = idle.post(f"{run}/{verb}", headers=ACME)
        assert (refused.status_code, refused.json()["syncId"]) == (409, sync_id)
        assert refused.json()["remedy"]


def test_a_resumed_run_is_worked_on(place: Place, client: httpx.Client) -> None:
    run_id = place.sync.start(place.factory, tenant_id="acme")
    with place.factory() as session:
        place.sync.pause(session, run_id)
        session.commit()
    assert place.sync.advance(place.factory, run_id).state == "paused"
    assert client.post(f"{API}/sync-data/{run_id}/resume", headers=ACME).status_code == 202
    assert until_over(client, str(run_id))["state"] == "completed"


def test_a_consoles_run_whose_worker_has_died_is_gone_on_with_and_nobody_elses(place: Place) -> None:
    theirs = place.sync.start(place.factory, tenant_id="beta", actor="nightly job")
    run_id = place.sync.start(place.factory, tenant_id="acme", actor="kari (console)")
    with place.factory() as session:
        for run in session.scalars(select(SyncRun)):
            run.lease_until = run.started_at
        session.commit()
    with served(place.app()) as client:
        assert until_over(client, str(run_id))["state"] == "completed"
    with place.factory() as session:
        assert place.sync.report(session, theirs).synced == 0


def test_a_run_that_somebody_works_on_is_not_taken_over(idle: httpx.Client) -> None:
    sync_id = idle.post(f"{API}/sync-data", headers=ACME).json()["syncId"]
    refused = idle.post(f"{API}/sync-data/{sync_id}/resume", headers=ACME)
    assert (refused.status_code, refused.json()["remedy"]) == (409, "Follow it.")


def test_why_a_run_failed_is_told_in_the_librarys_words_alone(place: Place) -> None:
    def health() -> str | None:
        raise RuntimeError("postgresql://erp:hunter2@10.0.0.5")

    with served(place.app(health=health)) as client:
        sync_id = client.post(f"{API}/sync-data", headers=ACME).json()["syncId"]
        told = until_over(client, sync_id)
        cancelled = client.post(f"{API}/sync-data/{sync_id}/cancel", headers=ACME)
        history = client.get(f"{API}/sync-data", headers=ACME)
    assert cancelled.json()["state"] == "cancelled"
    assert (told["state"], told["snapshot"]["note"]) == ("failed", "RuntimeError. The server's log says more.")
    assert "hunter2" not in str(told) + cancelled.text + history.text
    run_id = place.sync.start(place.factory, tenant_id="beta", posting=True)
    with pytest.raises(ConfigurationError):
        place.sync.advance(place.factory, run_id)
    with served(place.app(runs_at_once=0)) as client:
        assert "poster" in client.get(f"{API}/sync-data/{run_id}", headers=BETA).json()["message"]


@pytest.mark.parametrize("tenants", [(None,), (ALL_TENANTS,), (None, ALL_TENANTS)])
def test_a_tenant_that_names_nobody_or_everybody_opens_nothing(place: Place, tenants: tuple[Any, ...]) -> None:
    run_id = place.sync.start(place.factory, tenant_id="beta")
    app = create_app(
        place.sync, place.factory, lambda token: Principal("x", tenants, frozenset(RIGHTS)), runs_at_once=0
    )
    with served(app) as client:
        for operation in app.operations:
            path = f"{API}{operation.path}".replace("{syncId}", str(run_id))
            query = {"explain": {"q": "BETA-1"}, "statement": {"ledger": "supplier", "party": "1"}}
            body = BY_HAND if operation.right == "settle" else None
            answer = client.request(operation.method, path, headers=ACME, params=query.get(operation.name), json=body)
            assert answer.status_code == (200 if operation.name == "session" else 403)
            assert "beta" not in answer.text.lower()


def test_tenants_are_given_as_a_tuple() -> None:
    with pytest.raises(ConfigurationError, match="tuple of tenants"):
        Principal("kari", "acme")  # type: ignore[arg-type]


def test_a_token_ends_at_an_aware_moment(place: Place) -> None:
    with pytest.raises(ConfigurationError, match=r"2030.*aware"):
        Principal("kari", ("acme",), expires_at=datetime(2030, 1, 1))  # noqa: DTZ001 - which is what is refused
    aware = Principal("kari", ("acme",), expires_at=datetime(2030, 1, 1, tzinfo=UTC))
    app = create_app(place.sync, place.factory, lambda token: aware, runs_at_once=0)
    with served(app) as client:
        assert client.get(f"{API}/session", headers=ACME).json()["expiresAt"] == "2030-01-01T00:00:00Z"
    told = app.openapi["components"]["schemas"]["SignedIn"]["properties"]["expiresAt"]
    assert {"type": "string", "format": "date-time"} in told["anyOf"]


def test_origins_are_given_as_several(place: Place) -> None:
    with pytest.raises(ConfigurationError, match="give a tuple of origins"):
        place.app(origins="https://erp.example.com")


def test_the_proof_and_the_lines_behind_it(place: Place, client: httpx.Client) -> None:
    proof = client.get(f"{API}/proof", headers=ACME).json()
    (supplier,) = [one for one in proof["accounts"] if one["account_number"] == "2400"]
    causes = {cause["name"]: (cause["count"], cause["amount"], cause["fault"]) for cause in supplier["causes"]}
    assert not proof["clean"]
    assert causes == {"missing": (7, "35015.00", True), "manual": (1, "77.00", False)}
    assert supplier["difference"] == "35092.00"
    lines = client.get(f"{API}/proof/lines", params={"account": "2400", "cause": "manual"}, headers=ACME).json()
    assert [(line["voucher"], line["amount"]) for line in lines["lines"]] == [("ACME-manual/2026", "77.00")]
    assert lines["more"] is False
    assert client.get(f"{API}/proof/lines?limit=2", headers=ACME).json()["more"] is True
    place.sync.backfill(place.factory, tenant_id="acme")
    assert client.get(f"{API}/proof", headers=ACME).json()["clean"]


def test_explained_by_voucher_by_kind_and_by_number_alone(place: Place, client: httpx.Client) -> None:
    voucher = place.ids["acme"]["voucher"]
    for asked in (voucher, "vendor_invoice:ACME-5", " ACME-5 "):
        found = client.get(f"{API}/explain", params={"q": asked}, headers=ACME)
        assert found.status_code == 200, found.text
        assert [entry["voucher"] for entry in found.json()["entries"]] == [voucher]
    missing = client.get(f"{API}/explain?q=nobody", headers=ACME)
    assert (missing.status_code, missing.json()["title"]) == (404, "Not in the books")
    assert missing.json()["remedy"]


def test_what_else_bears_a_number_is_told_beside_the_first(place: Place, client: httpx.Client) -> None:
    with place.factory() as session:
        books.customer_invoice(session, invoice_number="ACME-5")
        session.commit()
    found = client.get(f"{API}/explain?q=ACME-5", headers=ACME).json()
    bears = {found["subject"].replace(" ", ":"), *found["others"]}
    assert bears == {"vendor_invoice:ACME-5", "customer_invoice:ACME-5"}
    with place.factory() as session:
        for series in ("A", "B"):
            books.entry(session, voucher_series=series, voucher_number="ACME-5")
        session.commit()
    found = client.get(f"{API}/explain?q=ACME-5", headers=ACME).json()
    assert {found["subject"].replace(" ", ":"), *found["others"]} == bears | {"A-ACME-5/2026", "B-ACME-5/2026"}
    for other in found["others"]:
        assert client.get(f"{API}/explain", params={"q": other}, headers=ACME).status_code == 200


def test_a_search_finds_long_voucher_numbers_and_numbers_with_a_colon(place: Place, client: httpx.Client) -> None:
    long = "L" * 60
    with place.factory() as session:
        books.vendor_invoice(session, invoice_number="INV:2026")
        books.entry(session, voucher_series="S" * 20, voucher_number=long)
        session.commit()
    for asked in ("INV:2026", f"{'S' * 20}-{long}"):
        found = client.get(f"{API}/explain", params={"q": asked}, headers=ACME)
        assert found.status_code == 200, found.text
        assert asked in found.json()["subject"]
    too_long = client.get(f"{API}/explain", params={"q": "9" * 150}, headers=ACME)
    assert too_long.status_code == 422


def test_open_items_ageing_and_statement(place: Place, client: httpx.Client) -> None:
    place.sync.backfill(place.factory, tenant_id="acme")
    items = client.get(f"{API}/open-items?ledger=supplier", headers=ACME).json()["items"]
    assert [item["remaining_amount"] for item in items] == [f"700{n}.00" for n in range(1, 6)]
    assert len(client.get(f"{API}/open-items?includeSettled=true", headers=ACME).json()["items"]) == 7
    assert client.get(f"{API}/open-items?limit=2", headers=ACME).json()["more"] is True
    ageing = client.get(f"{API}/ageing?ledger=supplier&asOf=2026-04-10", headers=ACME).json()
    assert [row["total"] for row in ageing["rows"]] == ["35015.00"]
    party = {"ledger": "supplier", "party": place.ids["acme"]["party"]}
    statement = client.get(f"{API}/statement", params=party, headers=ACME).json()
    assert (statement["closing"], len(statement["movements"])) == ("35015.00", 7)
    for nobody in ("x", "9" * 30, "-1"):
        assert client.get(f"{API}/statement?ledger=supplier&party={nobody}", headers=ACME).status_code == 404
    assert client.get(f"{API}/ageing?asOf=86400", headers=ACME).status_code == 422


# -- by hand ------------------------------------------------------------------------------------------------


def pair_of(place: Place, tenant: str, **more: Any) -> dict[str, Any]:
    """The payment and an invoice other than the one that it pays, as a request names them."""
    with place.factory() as session:
        items = place.sync.open_items(session, tenant, ledgers=["supplier"], include_settled=True)
    payment = next(item for item in items if item.amount < 0)
    invoice = next(item for item in items if item.remaining_amount > 0)
    lines = {"fromLine": str(payment.general_ledger_line_id), "toLine": str(invoice.general_ledger_line_id)}
    return {"ledger": "supplier", **lines, "reason": "asked by the supplier", "idempotencyKey": "k1", **more}


def left_of(place: Place, line: str) -> str:
    with place.factory() as session:
        items = place.sync.open_items(session, "acme", include_settled=True)
    return next(str(item.remaining_amount) for item in items if str(item.general_ledger_line_id) == line)


def test_two_items_are_settled_by_hand_and_taken_apart_in_the_principals_name(place: Place, idle: httpx.Client) -> None:
    place.sync.backfill(place.factory, tenant_id="acme")
    body = pair_of(place, "acme", amount="1000.10")
    first = idle.post(f"{API}/settle", headers=SETTLER, json=body)
    assert first.status_code == 200, first.text
    told = first.json()
    assert (told["amount"], told["method"], told["actor"]) == ("1000.10", "manual", "siv")
    assert (told["reason"], told["idempotency_key"]) == ("asked by the supplier", "k1")
    assert left_of(place, body["toLine"]) == "6000.90"
    assert idle.post(f"{API}/settle", headers=SETTLER, json=body).json() == told
    assert left_of(place, body["toLine"]) == "6000.90"
    del body["amount"]
    undone = idle.post(f"{API}/unsettle", headers=SETTLER, json={**body, "idempotencyKey": "k2"})
    assert (undone.status_code, undone.json()["amount"]) == (200, "-1000.10")
    assert left_of(place, body["toLine"]) == "7001.00"
    with place.engine.connect() as connection:
        assert_settled(connection)


def test_a_pin_is_set_and_taken_back_and_the_payment_settles_by_itself_again(place: Place, idle: httpx.Client) -> None:
    place.sync.backfill(place.factory, tenant_id="acme")
    body = pair_of(place, "acme")
    with place.factory() as session:
        items = place.sync.open_items(session, "acme", ledgers=["supplier"], include_settled=True)
    paid = next(item for item in items if item.amount > 0 and item.remaining_amount == 0)
    body["toLine"] = str(paid.general_ledger_line_id)
    refused = idle.post(f"{API}/release", headers=SETTLER, json=body)
    assert (refused.status_code, "are not pinned apart" in refused.json()["detail"]) == (422, True)
    assert idle.post(f"{API}/unsettle", headers=SETTLER, json=body).json()["method"] == "pin"
    assert left_of(place, body["toLine"]) == "7000.00"
    released = idle.post(f"{API}/release", headers=SETTLER, json={**body, "idempotencyKey": "k2"})
    told = released.json()
    assert (released.status_code, told["method"], told["amount"], told["actor"]) == (200, "release", "0.00", "siv")
    assert left_of(place, body["toLine"]) == "0.00"
    with place.engine.connect() as connection:
        assert_settled(connection)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"amount": "7000.01"}, "leave 7000.00"),
        ({"amount": "0"}, "cannot be settled by 0"),
        ({"amount": "0.001"}, "amount"),
        ({"amount": "-1.00"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": 10.0}, "amount"),
        ({"on": "2020-01-01"}, "before both are there"),
        ({"reason": ""}, "reason"),
        ({"idempotencyKey": ""}, "idempotencyKey"),
        ({"ledger": "payroll"}, "ledger"),
    ],
)
def test_what_cannot_be_settled_is_refused_with_what_to_do(
    place: Place, idle: httpx.Client, more: dict[str, Any], said: str
) -> None:
    place.sync.backfill(place.factory, tenant_id="acme")
    body = pair_of(place, "acme", **more)
    refused = idle.post(f"{API}/settle", headers=SETTLER, json=body)
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json"), refused.text
    assert said in refused.json()["detail"]
    assert refused.json()["remedy"]
    assert left_of(place, body["toLine"]) == "7001.00"


def test_what_is_not_settled_is_not_taken_apart_and_a_key_serves_one_call(place: Place, idle: httpx.Client) -> None:
    place.sync.backfill(place.factory, tenant_id="acme")
    body = pair_of(place, "acme")
    refused = idle.post(f"{API}/unsettle", headers=SETTLER, json=body)
    assert (refused.status_code, "are not settled" in refused.json()["detail"]) == (422, True)
    assert idle.post(f"{API}/settle", headers=SETTLER, json=body).status_code == 200
    with place.factory() as session:
        other = place.sync.open_items(session, "acme", ledgers=["supplier"])[-1]
    again = idle.post(
        f"{API}/settle", headers=SETTLER, json={**body, "toLine": str(other.general_ledger_line_id), "amount": "1"}
    )
    assert (again.status_code, "idempotency key 'k1'" in again.json()["detail"]) == (422, True)


@pytest.mark.parametrize("path", ["settle", "unsettle", "release"])
def test_another_tenants_items_are_settled_by_nobody_and_told_as_nobodys(
    place: Place, idle: httpx.Client, path: str
) -> None:
    for tenant in ("acme", "beta"):
        place.sync.backfill(place.factory, tenant_id=tenant)
    own, theirs = pair_of(place, "acme"), pair_of(place, "beta")
    nobodys = idle.post(f"{API}/{path}", headers=SETTLER, json={**own, "toLine": "999999"})
    assert (nobodys.status_code, nobodys.json()["title"]) == (404, "Not there")
    for body in (
        theirs,
        {**own, "toLine": theirs["toLine"]},
        {**theirs, "toLine": own["toLine"]},
        {**theirs, "tenant": "beta"},
        {**own, "fromLine": "x"},
        {**own, "ledger": "customer"},
    ):
        answer = idle.post(f"{API}/{path}", headers=SETTLER, json=body)
        assert (answer.status_code, answer.text) == (404, nobodys.text)
    # and who has both tenants does not reach from one into the other
    mixed = {**own, "toLine": theirs["toLine"], "tenant": "acme"}
    assert idle.post(f"{API}/{path}", headers=BOTH, json=mixed).text == nobodys.text
    with place.factory() as session:
        rows = session.scalars(select(SupplierApplication).where(SupplierApplication.idempotency_key.is_not(None)))
        assert rows.all() == []


@pytest.mark.parametrize("path", ["settle", "unsettle", "release"])
@pytest.mark.parametrize(
    ("token", "status"),
    [
        ("token-to-read", 403),
        ("token-of-acme", 403),
        ("token-of-settle", 404),
        ("token-to-settle", 404),
        ("token-of-nobody", 401),
    ],
)
def test_who_has_the_right_to_settle_settles_and_nobody_else(
    idle: httpx.Client, path: str, token: str, status: int
) -> None:
    # the items are not there yet, which only who may settle gets to know
    assert idle.post(f"{API}/{path}", headers=headers(token), json=BY_HAND).status_code == status


# -- who may ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no token"),
        ({"Authorization": "Basic a2FyaTpoZW1tZWxpZw=="}, "another scheme"),
        ({"Authorization": "Bearer"}, "another scheme"),
        ({"Authorization": "Bearer token-of-nobody"}, "nobody's"),
        ({"Authorization": "Bearer t\u00f8ken".encode()}, "nobody's"),
        (headers("token-expired"), "expired"),
    ],
)
def test_who_has_no_valid_token_is_told_so_and_nothing_else(place: Place, given: dict[str, Any], said: str) -> None:
    app = place.app(runs_at_once=0)
    with served(app) as client:
        for operation in app.operations:
            path = f"{API}{operation.path}".replace("{syncId}", "1")
            answer = client.request(operation.method, path, headers=given)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert said in answer.json()["detail"]


def test_rights_are_needed(idle: httpx.Client) -> None:
    reader = headers("token-to-read")
    assert idle.get(f"{API}/session", headers=reader).json()["rights"] == ["read"]
    assert idle.get(f"{API}/proof", headers=reader).status_code == 200
    refused = idle.post(f"{API}/sync-data", headers=reader)
    assert (refused.status_code, refused.json()["title"]) == (403, "Not allowed")


def test_who_has_several_tenants_names_one(idle: httpx.Client) -> None:
    assert idle.get(f"{API}/session", headers=BOTH).json()["tenants"] == ["acme", "beta"]
    assert idle.get(f"{API}/proof", headers=BOTH).status_code == 422
    assert idle.get(f"{API}/proof?tenant=beta", headers=BOTH).json()["tenant_id"] == "beta"
    assert idle.post(f"{API}/sync-data", headers=BOTH, json={"tenant": "beta"}).status_code == 202
    assert idle.post(f"{API}/sync-data?tenant=acme", headers=BOTH, json={"tenant": "beta"}).status_code == 422


def test_who_has_no_tenant_is_told_so_whatever_they_name(idle: httpx.Client) -> None:
    for asked in ("", "?tenant=acme", "?tenant=nobody"):
        refused = idle.get(f"{API}/proof{asked}", headers=headers("token-of-nothing"))
        assert (refused.status_code, refused.json()["title"]) == (403, "No books")


BY_HAND: dict[str, Any] = {"ledger": "supplier", "fromLine": "1", "toLine": "2", "reason": "r", "idempotencyKey": "k"}

BETAS: dict[str, list[dict[str, Any]]] = {
    "session": [{}],
    "start": [{"json": {"tenant": "beta"}}, {"params": {"tenant": "beta"}}],
    "history": [{"params": {"tenant": "beta"}}, {}],
    "run": [{}, {"params": {"tenant": "beta"}}],
    "errors": [{}],
    "pause": [{}],
    "resume": [{}],
    "cancel": [{}],
    "proof": [{}, {"params": {"tenant": "beta"}}],
    "lines": [{}],
    "explain": [{"params": {"q": "BETA-1"}}, {"params": {"q": "vendor_invoice:BETA-1"}}],
    "items": [{}, {"params": {"tenant": "beta"}}],
    "ageing": [{}],
    "statement": [{"params": {"ledger": "supplier", "party": "{party}"}}],
    "settle": [{"json": BY_HAND}, {"json": {**BY_HAND, "tenant": "beta"}}],
    "unsettle": [{"json": BY_HAND}],
    "release": [{"json": BY_HAND}],
}
"""By operation: what acme asks about beta's."""


def test_nothing_of_another_tenants_comes_back(place: Place) -> None:
    app = place.app(runs_at_once=0)
    assert {operation.name for operation in app.operations} == BETAS.keys()
    run_id = place.sync.start(place.factory, tenant_id="beta", actor="BETA actor")
    place.sync.advance(place.factory, run_id, budget_seconds=0.01)
    with served(app) as client:
        for operation in app.operations:
            path = f"{API}{operation.path}".replace("{syncId}", str(run_id))
            nobodys = f"{API}{operation.path}".replace("{syncId}", "4711")
            for case in BETAS[operation.name]:
                given = dict(case)
                if "party" in given.get("params", {}):
                    given["params"] = {**given["params"], "party": place.ids["beta"]["party"]}
                answer = client.request(operation.method, path, headers=SETTLER, **given)
                said = answer.text
                for typed in ("BETA-1", "beta"):
                    said = said.replace(typed, "") if typed in str(case) else said
                assert not re.search(r"beta|token", said, re.IGNORECASE), (operation.name, answer.text)
                if path != nobodys:
                    other = client.request(operation.method, nobodys, headers=SETTLER, **given)
                    assert (answer.status_code, answer.text) == (404, other.text)
    with place.factory() as session:
        assert place.sync.report(session, run_id).command is None


# -- what does not fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 50_000, "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"unknown": 1}', "application/json", 422),
        (b'{"kinds": []}', "application/json", 422),
        (b'{"kinds": ["payroll"]}', "application/json", 422),
        (b'{"since": "yesterday"}', "application/json", 422),
        (b'{"since": "2026-02-30"}', "application/json", 422),
        (b'{"dryRun": "yes"}', "application/json", 422),
        (b'{"since": 0}', "application/json", 422),
        (b'{"dry_run": true}', "application/json", 422),
        (b"{}", "text/plain", 415),
        (b" " * (BODY_MAX + 1), "application/json", 413),
    ],
)
def test_a_body_that_does_not_fit_is_refused_and_starts_nothing(
    place: Place, idle: httpx.Client, body: bytes, kind: str, status: int
) -> None:
    answer = idle.post(f"{API}/sync-data", headers={**ACME, "Content-Type": kind}, content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["remedy"]
    with place.factory() as session:
        assert place.sync.runs(session, "acme") == ()


def test_a_body_without_a_length_is_read_no_further_than_it_may_be(idle: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(BODY_MAX // 1024 + 2):
            yield b" " * 1024

    answer = idle.post(f"{API}/sync-data", headers={**ACME, "Content-Type": "application/json"}, content=endless())
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "limit=1&limit=2",
        "unknown=1",
        "tenant=" + "x" * 201,
    ],
)
def test_a_query_that_does_not_fit_is_refused(idle: httpx.Client, query: str) -> None:
    answer = idle.get(f"{API}/sync-data?{query}", headers=ACME)
    assert answer.status_code == 422
    assert answer.json()["remedy"]


@pytest.mark.parametrize("run_id", ["0", "-1", "x", "1.5", "9" * 19, "9" * 400, "%00", "\u0661", "1e3"])
def test_a_run_that_no_database_has_is_not_there(idle: httpx.Client, run_id: str) -> None:
    answer = idle.get(f"{API}/sync-data/{run_id}", headers=ACME)
    assert (answer.status_code, answer.json()["title"]) == (404, "Not there")


def test_what_goes_wrong_inside_is_told_to_the_log_alone(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    lost = sessionmaker(create_engine("sqlite:////nowhere/secret-place/books.db"))
    app = create_app(LedgerSync(), lost, authenticate, runs_at_once=0)
    with served(app) as client:
        answer = client.get(f"{API}/proof", headers=ACME)
    assert answer.status_code == 500
    assert "secret-place" not in answer.text
    assert "Traceback" not in answer.text
    assert any(record.exc_info for record in caplog.records)


def test_a_database_that_is_busy_or_lost_is_a_503_for_every_operation(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    def lost() -> Session:
        raise OperationalError("SELECT secret", {}, DriverError(*STATES["lost"]))

    app = create_app(place.sync, lost, authenticate, runs_at_once=0)
    asked: dict[str, dict[str, Any]] = {
        "explain": {"params": {"q": "ACME-1"}},
        "statement": {"params": {"ledger": "supplier", "party": "1"}},
        **{operation.name: {"json": BY_HAND} for operation in app.operations if operation.right == "settle"},
    }
    with served(app) as client:
        for operation in app.operations:
            path = f"{API}{operation.path}".replace("{syncId}", "1")
            answer = client.request(operation.method, path, headers=SETTLER, **asked.get(operation.name, {}))
            assert answer.status_code == (200 if operation.name == "session" else 503), operation.name
            assert operation.name == "session" or answer.json()["remedy"] == "Try again in a moment."
            assert "secret" not in answer.text
    assert "08006" in caplog.text
    assert "secret" not in "".join(record.getMessage() for record in caplog.records)


def test_a_pool_whose_connections_are_all_in_use_is_a_503(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    pool = create_engine("sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0)
    app = create_app(place.sync, sessionmaker(pool), authenticate, runs_at_once=0)
    with pool.connect(), served(app) as client:
        answer = client.get(f"{API}/proof", headers=ACME)
    pool.dispose()
    assert (answer.status_code, answer.json()["remedy"]) == (503, "Try again in a moment.")
    assert "QueuePool limit" in caplog.text


def test_a_host_that_cannot_say_whose_a_token_is_just_now_is_a_503(place: Place) -> None:
    async def unreachable(token: str) -> Principal | None:
        raise ConnectionError("at 10.0.0.5")

    with served(create_app(place.sync, place.factory, unreachable, runs_at_once=0)) as client:
        answer = client.get(f"{API}/session", headers=ACME)
    assert (answer.status_code, answer.json()["detail"]) == (503, "The token could not be looked at.")


# -- where it is --------------------------------------------------------------------------------------------


def test_it_mounts_under_a_prefix_of_a_backend(place: Place) -> None:
    backend = FastAPI()
    backend.mount("/erp/ledger", place.app(runs_at_once=0))
    with served(backend) as client:
        assert client.get(f"/erp/ledger{API}/session", headers=ACME).json()["name"] == "kari"
        assert client.get("/erp/ledger", follow_redirects=False).headers["location"].endswith("/erp/ledger/")
        page = client.get("/erp/ledger/")
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        assert client.get("/erp/ledger/icon.svg").headers["content-type"].startswith("image/svg+xml")
        assert client.get("/erp/ledger/socket.io/?EIO=4&transport=polling").status_code == 200
        assert client.get(f"/erp/ledger{API}/nothing", headers=ACME).json()["status"] == 404
        assert client.post(f"/erp/ledger{API}/proof", headers=ACME).status_code == 405


def test_what_is_closed_leaves_no_thread_and_may_be_served_again(place: Place) -> None:
    before = set(threading.enumerate())
    app = place.app()
    for _ in range(2):
        with served(app) as client:
            assert client.get(f"{API}/proof", headers=ACME).status_code == 200
            ours = [one for one in set(threading.enumerate()) - before if one.name.startswith("ledger-sync web")]
        assert ours
        for thread in ours:
            thread.join(10)
        assert not any(thread.is_alive() for thread in ours)


def test_built_files_are_cached_by_their_content(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ledger-sync-console.js", "ledger-sync-shared-abc.js"):
        (tmp_path / name).write_text("export {}")
    monkeypatch.setattr(web_app, "STATIC", tmp_path)
    with served(place.app(runs_at_once=0)) as client:
        entry, shared = (client.get(f"/assets/{file.name}") for file in sorted(tmp_path.iterdir()))
        assert entry.headers["cache-control"] == "no-cache"
        assert "immutable" in shared.headers["cache-control"]
        assert client.get("/assets/../app.py").status_code == 404
        assert client.get("/assets/%2e%2e/app.py").status_code == 404
        assert client.get("/").text.count("ledger-sync-console.js") == 1
    monkeypatch.setattr(web_app, "STATIC", tmp_path / "nowhere")
    with served(place.app(runs_at_once=0)) as client:
        page = client.get("/")
        assert (page.status_code, "npm run build" in page.text) == (503, True)


def test_an_asynchronous_factory_does_the_same(place: Place) -> None:
    url, there = place.engine.url, {}
    if url.get_backend_name() == "sqlite":
        url = url.set(drivername="sqlite+aiosqlite")
    else:  # psycopg is both; the books are in a schema of their own
        with place.engine.connect() as connection:
            there = {"options": f"-csearch_path={connection.scalar(select(func.current_schema()))}"}
    engine = create_async_engine(url, poolclass=NullPool, connect_args=there)
    app = create_app(place.sync, async_sessionmaker(engine), authenticate)
    with served(app) as client:
        sync_id = client.post(f"{API}/sync-data", headers=ACME).json()["syncId"]
        assert until_over(client, sync_id)["state"] == "completed"
        assert client.get(f"{API}/proof", headers=ACME).json()["clean"]
    place.sync.backfill(place.factory, tenant_id="beta")
    with place.engine.connect() as connection:
        assert_synced(connection)


def test_other_origins_are_let_in_by_name_only(place: Place) -> None:
    asked = {"Origin": "https://erp.example.com", "Access-Control-Request-Method": "GET"}
    with served(place.app(runs_at_once=0)) as client:
        assert "access-control-allow-origin" not in client.options(f"{API}/session", headers=asked).headers
        assert client.get("/socket.io/?EIO=4&transport=polling", headers=asked).status_code == 400
    with served(place.app(runs_at_once=0, origins=["https://erp.example.com"])) as client:
        own = {"Origin": str(client.base_url).rstrip("/")}
        assert client.get("/socket.io/?EIO=4&transport=polling", headers=own).status_code == 200
        told = client.options(f"{API}/session", headers=asked).headers
        assert told["access-control-allow-origin"] == "https://erp.example.com"
        assert client.get("/socket.io/?EIO=4&transport=polling", headers=asked).status_code == 200
        asked["Origin"] = "https://evil.example.com"
        assert "access-control-allow-origin" not in client.options(f"{API}/session", headers=asked).headers
        assert client.get("/socket.io/?EIO=4&transport=polling", headers=asked).status_code == 400


@pytest.mark.parametrize(
    ("tls", "forwarded", "own"),
    [
        (False, None, "http"),
        (True, None, "https"),
        (False, "https", "https"),
        (False, "https, http", "https"),
        (False, "wss", "https"),
        (True, "http", "http"),
    ],
)
def test_the_application_s_own_origin_is_that_of_its_server_or_of_the_proxy_before_it(
    place: Place, tls: bool, forwarded: str | None, own: str
) -> None:
    app = place.app(runs_at_once=0)
    with served(with_tls(app) if tls else app) as client:
        given = {} if forwarded is None else {"X-Forwarded-Proto": forwarded}
        for scheme in ("http", "https"):
            asked = {**given, "Origin": f"{scheme}://{client.base_url.netloc.decode()}"}
            answer = client.get("/socket.io/?EIO=4&transport=polling", headers=asked)
            assert answer.status_code == (200 if scheme == own else 400)
