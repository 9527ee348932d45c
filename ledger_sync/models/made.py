"""The library's own tables for a host's models: made of the mixins, with the host's types of keys, in its schema.

The classes are mapped on the host's own registry, so that its metadata has their tables: ``create_all`` makes them, and
Alembic sees them. Made once for each set of tables; a second ``LedgerSync`` over the same models finds them there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import CheckConstraint, Index, inspect
from sqlalchemy.orm import Mapper, mapped_column, registry
from sqlalchemy.sql.elements import conv
from sqlalchemy.types import TypeEngine

from ledger_sync.errors import ConfigurationError
from ledger_sync.models.mixins import SourceLinkMixin
from ledger_sync.models.own import (
    ApplicationMixin,
    DecisionMixin,
    LockMixin,
    OpenItemMixin,
    SyncErrorMixin,
    SyncRunMixin,
    SyncSegmentMixin,
    TombstoneMixin,
)

_MARK = "__ledger_sync_made__"


class Made:
    """Stands for a class that the library makes itself."""


@dataclass(frozen=True)
class Keys:
    """The host's types: of tenants, of entries, of lines, and of the documents that are sources."""

    tenant: TypeEngine[Any]
    entry: TypeEngine[Any]
    line: TypeEngine[Any]
    source: TypeEngine[Any]


class Maker:
    """Makes the classes beside one host's class of entries."""

    def __init__(self, entry: type[Any], keys: Keys) -> None:
        mapper: Mapper[Any] = inspect(entry)
        self.registry: registry = mapper.registry
        self.module = entry.__module__
        self.schema: str | None = getattr(mapper.local_table, "schema", None)
        self.keys = keys

    def link(self) -> type[Any]:
        """The class of source links."""
        return self._made(
            "SourceLink",
            SourceLinkMixin,
            "ledger_source_links",
            (*SourceLinkMixin.link_checks(), Index(None, "source_type", "source_id")),
            line_id=mapped_column(self.keys.line, primary_key=True, autoincrement=False),
            source_id=mapped_column(self.keys.source, nullable=False),
        )

    def decision(self) -> type[Any]:
        """The class of what people decided about lines."""
        table = "ledger_sync_decisions"
        return self._made(
            "SyncDecision",
            DecisionMixin,
            table,
            DecisionMixin.decision_args(table),
            tenant_id=mapped_column(self.keys.tenant, nullable=False),
            general_ledger_line_id=mapped_column(self.keys.line, nullable=False),
            source_id=mapped_column(self.keys.source),
        )

    def lock(self) -> type[Any]:
        """The class of locks."""
        return self._made("SyncLock", LockMixin, "ledger_sync_locks", ())

    def run(self) -> type[Any]:
        """The class of runs."""
        tenant = mapped_column(self.keys.tenant)
        return self._made("SyncRun", SyncRunMixin, "ledger_sync_runs", SyncRunMixin.run_args(), tenant_id=tenant)

    def segment(self) -> type[Any]:
        """The class of the segments of runs."""
        tenant, args = mapped_column(self.keys.tenant), SyncSegmentMixin.segment_args()
        return self._made("SyncSegment", SyncSegmentMixin, "ledger_sync_segments", args, tenant_id=tenant)

    def tombstone(self) -> type[Any]:
        """The class of what repairs took away."""
        return self._made(
            "Tombstone",
            TombstoneMixin,
            "ledger_sync_tombstones",
            TombstoneMixin.tombstone_args(),
            tenant_id=mapped_column(self.keys.tenant, nullable=False),
            general_ledger_line_id=mapped_column(self.keys.line, nullable=False),
        )

    def error(self) -> type[Any]:
        """The class of what could not be written."""
        return self._made(
            "SyncError",
            SyncErrorMixin,
            "ledger_sync_errors",
            SyncErrorMixin.error_args(),
            tenant_id=mapped_column(self.keys.tenant),
            general_ledger_id=mapped_column(self.keys.entry),
            general_ledger_line_id=mapped_column(self.keys.line),
            source_id=mapped_column(self.keys.source),
        )

    def item(self, ledger: str, party: str, party_type: TypeEngine[Any]) -> type[Any]:
        """The class of a ledger's open items; ``party``: its attribute for the party."""
        return self._made(
            f"{ledger.title()}Ledger",
            OpenItemMixin,
            f"{ledger}_ledger",
            OpenItemMixin.item_args(party),
            tenant_id=mapped_column(self.keys.tenant, nullable=False),
            general_ledger_id=mapped_column(self.keys.entry, nullable=False),
            general_ledger_line_id=mapped_column(self.keys.line, nullable=False),
            source_id=mapped_column(self.keys.source, nullable=False),
            **{party: mapped_column(party_type, nullable=False)},
        )

    def application(self, ledger: str) -> type[Any]:
        """The class of what settles what in a ledger."""
        table = f"{ledger}_applications"
        return self._made(
            f"{ledger.title()}Application",
            ApplicationMixin,
            table,
            ApplicationMixin.application_args(table),
            tenant_id=mapped_column(self.keys.tenant, nullable=False),
            from_line_id=mapped_column(self.keys.line, nullable=False),
            to_line_id=mapped_column(self.keys.line, nullable=False),
        )

    def _made(self, name: str, mixin: type[Any], table: str, args: tuple[Any, ...], **columns: Any) -> type[Any]:
        full = table if self.schema is None else f"{self.schema}.{table}"
        # kept with the tables, since a registry lets go of classes that nobody holds, and a metadata never of tables
        kept: dict[str, type[Any]] = self.registry.metadata.info.setdefault(_MARK, {})
        if full in kept:
            return kept[full]
        if full in self.registry.metadata.tables:
            raise ConfigurationError(
                f"The models have a table {full} already. Bind its class instead of having one made, or rename it."
            )
        named = [_named(table, arg) for arg in args]
        namespace = {
            "__module__": self.module,
            "__doc__": mixin.__doc__,
            "__tablename__": table,
            "__table_args__": (*named, {"schema": self.schema}),
            **columns,
        }
        kept[full] = self.registry.mapped(type(name, (mixin,), namespace))
        return kept[full]


def _named(table: str, arg: Any) -> Any:
    """A constraint, with a check's name its own in the whole database, whatever the host's conventions."""
    if isinstance(arg, CheckConstraint):
        arg.name = conv(f"ck_{table}_{arg.name}")
    return arg
