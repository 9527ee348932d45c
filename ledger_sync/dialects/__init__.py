"""Every difference between databases, in one place; nothing else in the package asks which database it talks to.

``families``: which database is like which, and its column types. ``elements``: SQL that compiles to what each of them
understands. ``columns``: amounts and words of hosts' own columns. ``references``: references as they are compared, and
how they are indexed. ``writing``: statements that write and tell what they wrote. ``locks``: who waits for whom.
``engines``: connections, and what goes wrong on them.
"""

from ledger_sync.dialects.columns import as_stored_word, scaled, unscaled
from ledger_sync.dialects.elements import (
    AMOUNT_BOUND,
    all_digits,
    among,
    as_date,
    as_uuid,
    ascii_upper,
    binary_order,
    characters,
    exact_amount,
    likely,
    parameter_set,
    present_moment,
    step,
    text_of,
    unindexed,
    values_of,
    worked_out_first,
)
from ledger_sync.dialects.engines import (
    count_anew,
    fault_of,
    masked,
    open_engine,
    plan_for_range,
    plan_plainly,
    rolled_back_if_refused,
    savepoints_hold,
    tells_written_keys,
    transaction_lost,
)
from ledger_sync.dialects.families import ID_TYPE, LONG_TEXT, amount_type, moment_type, plain, text_type, unless_mysql
from ledger_sync.dialects.locks import (
    all_bucket_keys,
    bucket_keys,
    held,
    mark_for_snapshots,
    refuse_old_snapshot,
    take_locks,
    wait_for_writers,
)
from ledger_sync.dialects.references import columns_kept, found_by_reference, index_normalised, normalised
from ledger_sync.dialects.writing import Append, Removal, Rewrite, Upsert, counts_beside_insert

__all__ = [
    "AMOUNT_BOUND",
    "ID_TYPE",
    "LONG_TEXT",
    "Append",
    "Removal",
    "Rewrite",
    "Upsert",
    "all_bucket_keys",
    "all_digits",
    "among",
    "amount_type",
    "as_date",
    "as_stored_word",
    "as_uuid",
    "ascii_upper",
    "binary_order",
    "bucket_keys",
    "characters",
    "columns_kept",
    "count_anew",
    "counts_beside_insert",
    "exact_amount",
    "fault_of",
    "found_by_reference",
    "held",
    "index_normalised",
    "likely",
    "mark_for_snapshots",
    "masked",
    "moment_type",
    "normalised",
    "open_engine",
    "parameter_set",
    "plain",
    "plan_for_range",
    "plan_plainly",
    "present_moment",
    "refuse_old_snapshot",
    "rolled_back_if_refused",
    "savepoints_hold",
    "scaled",
    "step",
    "take_locks",
    "tells_written_keys",
    "text_of",
    "text_type",
    "transaction_lost",
    "unindexed",
    "unless_mysql",
    "unscaled",
    "values_of",
    "wait_for_writers",
    "worked_out_first",
]
