"""Books of two tenants behind the application, and who may see what of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import uvicorn
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, Settings
from ledger_sync.contrib.web import Principal, WebApp, create_app
from tests import books

TOKENS: Final[dict[str, Principal]] = {
    "token-of-acme": Principal("kari", ("acme",), frozenset({"read", "sync"})),
    "token-of-beta": Principal("ola", ("beta",), frozenset({"read", "sync"})),
    "token-of-both": Principal("eva", ("acme", "beta"), frozenset({"read", "sync", "settle"})),
    "token-to-settle": Principal("siv", ("acme",), frozenset({"read", "sync", "settle"})),
    "token-of-settle": Principal("set", ("acme",), frozenset({"settle"})),
    "token-to-read": Principal("revisor", ("acme",)),
    "token-of-nothing": Principal("nobody", ()),
    "token-expired": Principal("kari", ("acme",), expires_at=datetime(2026, 1, 1, tzinfo=UTC)),
}

SMALL: Final = Settings(batch_lines_max=2, lease_seconds=2)


def authenticate(token: str) -> Principal | None:
    """Who has one of the tokens; what begins with ``brief`` lasts two seconds from when it is first shown."""
    return TOKENS.get(token)


def brief(token: str, seconds: float) -> None:
    """A token of acme's that ends soon."""
    TOKENS[token] = Principal("kari", ("acme",), frozenset({"read"}), datetime.now(UTC) + timedelta(seconds=seconds))


@dataclass
class Place:
    """A database with history in it, and the application around it."""

    engine: Engine
    sync: LedgerSync
    factory: sessionmaker[Session]
    ids: dict[str, dict[str, Any]] = field(default_factory=dict)

    def app(self, **more: Any) -> WebApp:
        return create_app(self.sync, self.factory, authenticate, **{"follow_seconds": 0.05, **more})


def fill(place: Place, tenant: str, count: int = 6) -> None:
    """History that nobody has synced: invoices, a payment, a manual posting and a document that no entry mentions."""
    mark = tenant.upper()
    with place.factory() as session:
        ids: dict[str, Any] = {}
        for number in range(count):
            reference = f"{mark}-KID{number}"
            of_tenant = {"tenant": tenant, "party": f"{mark}-V"}
            invoice = books.vendor_invoice(
                session, 7_000 + number, invoice_number=f"{mark}-{number}", payment_reference=reference, **of_tenant
            )
            entry = books.entry(
                session,
                signed=-(7_000 + number),
                source=("vendor_invoice", invoice.id),
                tenant=tenant,
                voucher_number=f"{mark}-voucher-{number}",
                line={"reference": reference},
            )
            ids |= {"party": invoice.vendor_id, "invoice": f"{mark}-{number}", "voucher": entry.voucher}
        paid = books.vendor_payment(session, 7_000, payment_reference=f"{mark}-KID0", **of_tenant)
        books.entry(session, signed=7_000, source=("vendor_payment", paid.id), tenant=tenant)
        books.entry(session, signed=-77, tenant=tenant, voucher_number=f"{mark}-manual")
        session.commit()
        place.ids[tenant] = ids


def with_tls(app: Any) -> Any:
    """The application as a server that speaks TLS itself calls it."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "scheme": f"{scope['scheme']}s"} if "scheme" in scope else scope, receive, send)

    return served


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The application on a free port of loopback; its address."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=0, log_level="warning", access_log=False, timeout_graceful_shutdown=1
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive(), "the server did not start"
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"
