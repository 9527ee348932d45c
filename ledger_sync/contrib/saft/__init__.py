"""Norwegian SAF-T Financial files, 1.10 to 1.30, into the ready-made models.

``import_saft`` reads a file as a stream, and posts its entries with a document behind every control line that
names a customer or supplier, all in one transaction. The open items are written by a backfill afterwards.
Needs the extra ``saft``. The format is described at https://www.skatteetaten.no/saf-t.
"""

from ledger_sync.errors import ConfigurationError

try:
    import lxml.etree  # noqa: F401
except ImportError:
    raise ConfigurationError("Reading SAF-T files needs lxml. Install it: pip install 'ledger-sync[saft]'.") from None

from ledger_sync.contrib.saft.load import OnSaftProgress, SaftProgress, SaftReport, import_saft

__all__ = ["OnSaftProgress", "SaftProgress", "SaftReport", "import_saft"]
