"""Which part of the history a run covers: whose, from when until when, which ledgers, sources and vouchers.

A scope restricts the projection before it is worked out (``restrict``), or, by source, what comes out of it
(``selects``): a reversal has its source from the line that it reverses, so only the projection knows it. It is kept in
the run's row as JSON, so that whoever goes on with the run covers the same part.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, bindparam

from ledger_sync.binding import Document, Ledger, attribute
from ledger_sync.control_lines import Lines, source_types
from ledger_sync.dialects import parameter_set
from ledger_sync.errors import ConfigurationError, CutOverError
from ledger_sync.settings import Settings

LEDGERS: Final = ("customer", "supplier", "employee")
"""The ledgers in the order in which a run goes through them."""


class Scope(BaseModel):
    """What a run covers within the books that its row names. ``entries``: journal entries by id, of single vouchers.

    ``posting``: whether documents that no posted entry mentions are posted as well.
    """

    model_config = ConfigDict(frozen=True)

    ledgers: tuple[str, ...]
    since: date | None = None
    until: date | None = None
    source_types: tuple[str, ...] | None = None
    entries: tuple[str | int, ...] | None = None
    posting: bool = False

    def shape(self) -> tuple[str, ...]:
        """Which conditions ``restrict`` has: scopes of one shape share their statements."""
        given = {"since": self.since, "until": self.until, "entries": self.entries, "sources": self.source_types}
        return tuple(name for name, value in given.items() if value is not None)

    def restrict(self, lines: Lines, *, tenant: bool = True) -> list[ColumnElement[bool]]:
        """The conditions on lines and entries, with their values bound by ``parameters``; ``tenant``: of one tenant."""
        entry = lines.entry
        tenant_id, entry_date = attribute(entry, "tenant_id"), attribute(entry, "entry_date")
        conditions: list[ColumnElement[bool]] = []
        if tenant:
            conditions.append(tenant_id == bindparam("scope_tenant", type_=tenant_id.type))
        if self.since is not None:
            conditions.append(entry_date >= bindparam("scope_since", type_=entry_date.type))
        if self.until is not None:
            conditions.append(entry_date <= bindparam("scope_until", type_=entry_date.type))
        if self.entries is not None:
            conditions.append(attribute(entry, "id").in_(parameter_set("scope_entries", attribute(entry, "id").type)))
        return conditions

    def parameters(self, tenant_id: Any) -> dict[str, Any]:
        """The bound values of ``restrict`` and ``selects``."""
        values: dict[str, Any] = {}
        if tenant_id is not None:
            values["scope_tenant"] = tenant_id
        if self.since is not None:
            values["scope_since"] = self.since
        if self.until is not None:
            values["scope_until"] = self.until
        if self.entries is not None:
            values["scope_entries"] = list(self.entries)
        if self.source_types is not None:
            values["scope_sources"] = list(self.source_types)
        return values

    def selects(self, source_type: ColumnElement[Any]) -> ColumnElement[bool] | None:
        """Whether a projected line's source is one of those that were asked for; None when all are."""
        if self.source_types is None:
            return None
        return source_type.in_(parameter_set("scope_sources", source_type.type))

    def takes_documents(self, settings: Settings, ledger: Ledger, document: Document) -> bool:
        """Whether documents of a class belong to the scope at all."""
        if self.entries is not None or ledger.name not in self.ledgers:
            return False
        if self.source_types is None:
            return True
        return not set(source_types(settings, ledger, document)).isdisjoint(self.source_types)


def chosen_ledgers(settings: Settings, wanted: Iterable[str] | None) -> tuple[str, ...]:
    """The ledgers of a run, in order.

    :raises ConfigurationError: one of them is not in the settings.
    """
    known = settings.ledgers()
    names = list(known if wanted is None else wanted)
    for name in names:
        if name not in known:
            raise ConfigurationError(f"There is no ledger {name!r}; the settings have {', '.join(known)}.")
    return tuple(name for name in LEDGERS if name in names)


def chosen_sources(settings: Settings, wanted: Iterable[str] | None) -> tuple[str, ...] | None:
    """The source types of a run.

    :raises ConfigurationError: one of them is not in the settings.
    """
    if wanted is None:
        return None
    known = {source_type for control in settings.control_accounts for source_type in control.sources}
    names = tuple(dict.fromkeys(wanted))
    for name in names:
        if name not in known:
            raise ConfigurationError(f"There is no source type {name!r}; the settings have {', '.join(sorted(known))}.")
    return names


def first_entry_date(settings: Settings, tenant_id: Any) -> date | None:
    """The entry date before which no run goes for a tenant, or None: the cut-over, where it is one of entry dates."""
    return settings.cut_over(tenant_id) if settings.effective_by == "entry_date" else None


def refuse_before_cut_over(settings: Settings, tenant_id: Any, since: date | None) -> None:
    """Refuse to go before one tenant's cut-over, or for all of them before the one that they share, with the remedy."""
    cut_over = first_entry_date(settings, tenant_id)
    if since is None or cut_over is None or since >= cut_over:
        return
    raise CutOverError(
        f"since={since} lies before the cut-over of {cut_over}. History is brought in by moving "
        "the cut-over back: set effective_from to that day, for hook and backfill alike."
    )
