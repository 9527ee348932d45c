"""The library's log: one logger, ``ledger_sync``, whose records nobody can forge a line of.

Names, numbers and messages of errors come from the books, so a filter on the logger escapes what cannot be printed in
arguments and extra fields, and indents tracebacks, before any handler sees the record.
"""

from __future__ import annotations

import logging
import traceback
from typing import Final

from ledger_sync.plain import INDENT, indented, one_line

log: Final = logging.getLogger("ledger_sync")

_ORDINARY: Final = frozenset(vars(logging.makeLogRecord({})))
"""What every record has; the rest are extra fields."""


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | None) else one_line(value)


class _Unforgeable(logging.Filter):
    """Lets every record pass, with nothing in it that a terminal or a reader of lines would take for something else."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_plain(argument) for argument in record.args)
        for name in vars(record).keys() - _ORDINARY:
            setattr(record, name, _plain(getattr(record, name)))
        if record.exc_info and record.exc_info[0] is not None:
            # a formatter takes the text that is there already
            record.exc_text = INDENT + indented("".join(traceback.format_exception(*record.exc_info)))
        return True


if not any(isinstance(there, _Unforgeable) for there in log.filters):
    log.addFilter(_Unforgeable())
