"""The SAF-T reader on files that nobody wrote: whatever comes in, a report or an ``ImportRefusedError`` comes out.

With coverage to guide it (``pip install 'ledger-sync[fuzz]'``, libFuzzer's own options behind it)::

    python -m tests.fuzz.saft -max_total_time=28800 corpus/

Without, from a printed seed, for so many seconds::

    python -m tests.fuzz.saft --seconds 600 [--seed 1]

A file that made something else come out is kept: by libFuzzer as ``crash-…``, otherwise as ``saft-crash.xml``.
The package is imported in ``Target``, so that what measures coverage can be switched on before.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

VALID: Final = b"""<?xml version="1.0" encoding="UTF-8"?>
<AuditFile xmlns="urn:StandardAuditFile-Taxation-Financial:NO">
<Header><AuditFileVersion>1.30</AuditFileVersion><AuditFileDateCreated>2025-01-02</AuditFileDateCreated>
<Company><RegistrationNumber>987654321</RegistrationNumber><Name>Sj\xc3\xb8 &amp; Land AS</Name></Company>
<DefaultCurrencyCode>NOK</DefaultCurrencyCode>
<SelectionCriteria><PeriodStart>1</PeriodStart><PeriodStartYear>2024</PeriodStartYear>
<PeriodEnd>12</PeriodEnd><PeriodEndYear>2024</PeriodEndYear></SelectionCriteria></Header>
<MasterFiles><GeneralLedgerAccounts>
<Account><AccountID>1500</AccountID><OpeningDebitBalance>100.00</OpeningDebitBalance></Account>
<Account><AccountID>2050</AccountID><OpeningCreditBalance>100.00</OpeningCreditBalance></Account>
<Account><AccountID>2400</AccountID><StandardAccountID>24</StandardAccountID></Account>
<Account><AccountID>3000</AccountID></Account></GeneralLedgerAccounts>
<Customers><Customer><Name>C</Name><CustomerID>C1</CustomerID><BalanceAccount><AccountID>1500</AccountID>
<OpeningDebitBalance>100.00</OpeningDebitBalance></BalanceAccount></Customer></Customers>
<Suppliers><Supplier><Name>S</Name><SupplierID>S1</SupplierID></Supplier></Suppliers></MasterFiles>
<GeneralLedgerEntries><NumberOfEntries>2</NumberOfEntries><TotalDebit>150</TotalDebit><TotalCredit>150</TotalCredit>
<Journal><JournalID>J1</JournalID><Transaction><TransactionID>1</TransactionID><PeriodYear>2024</PeriodYear>
<TransactionDate>2024-03-01</TransactionDate><Description>sale</Description><GLPostingDate>2024-03-02</GLPostingDate>
<Line><AccountID>1500</AccountID><CustomerID>C1</CustomerID><DebitAmount><Amount>100.00</Amount>
<CurrencyCode>EUR</CurrencyCode><CurrencyAmount>8.123</CurrencyAmount></DebitAmount>
<ReferenceNumber>F1</ReferenceNumber><CID>1234</CID><DueDate>2024-03-31Z</DueDate></Line>
<Line><AccountID>3000</AccountID><CreditAmount><Amount>100.00</Amount></CreditAmount></Line></Transaction>
<Transaction><TransactionID>2</TransactionID><PeriodYear>2024</PeriodYear><TransactionDate>2024-04-01</TransactionDate>
<SupplierID>S1</SupplierID><Line><AccountID>2400</AccountID><CreditAmount><Amount>50</Amount></CreditAmount>
<CrossReference>F1</CrossReference><SourceDocumentID>B7</SourceDocumentID></Line>
<Line><AccountID>3000</AccountID><DebitAmount><Amount>50</Amount></DebitAmount></Line></Transaction>
</Journal></GeneralLedgerEntries></AuditFile>"""

VALUES: Final = (
    *(b"", b" ", b"0", b"-0", b"-1", b"1e5", b"NaN", b"INF", b"+.5", b"1.", b"9" * 40, b"0." + b"0" * 40 + b"1"),
    *(b"12.345", b"9999999999999.99", b"10000000000000", b"2024-02-30", b"0001-01-01", b"9999-12-31", b"0000-00-00"),
    *(b"2024-03-01+14:00", b"1970", b"2100", b"2101", b"1.00", b"1.31", b"NOK", b"nok", b"EURO", b"1500", b"2400"),
    *(b"C1", b"S1", b"J1", b"&lt;", b"&amp;#0;", b"&#0;", b"&#xD800;", b"&#x202E;", b"&#10;", b"&x;", b"<![CDATA[a]]>"),
    *("\u0661\u0662".encode(), "\U0001f600".encode(), b"\xff\xfe", b"\x00", b"\xed\xa0\x80", b"x" * 71, b"x" * 2_000),
    *(b"'; DROP TABLE vendors; --", b"<!-- a -->", b"<?pi a?>", b"<Line/>", b"<Header/>", b"<a:b/>", b"<x xmlns=''/>"),
)
HEADS: Final = (
    b"",
    b"\xef\xbb\xbf",
    b'<?xml version="1.1"?>',
    b'<?xml version="1.0" encoding="UTF-16"?>',
    b'<?xml version="1.0" encoding="ISO-8859-1"?>',
    b'<?xml version="1.0" encoding="ASCII"?>',
    b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?><?a b?><!-- c -->',
    b'<!DOCTYPE a [<!ENTITY x "y">]>',
    b'<!-- > --><!doctype a SYSTEM "file:///etc/passwd">',
)
_ELEMENT: Final = re.compile(rb"<(\w+)>[^<]*</\1>|<(\w+)>(?:(?!</\2>).)*</\2>", re.DOTALL)
_TEXT: Final = re.compile(rb">([^<>]*)<")


class Target:
    """The reader and the import, on a file of its own and books that stay empty. ``Refused`` is what may come out."""

    def __init__(self, folder: Path) -> None:
        from sqlalchemy.orm import Session, sessionmaker
        from sqlalchemy.pool import StaticPool

        from ledger_sync.contrib.saft import import_saft
        from ledger_sync.contrib.saft.read import SaftFile
        from ledger_sync.dialects import open_engine
        from ledger_sync.errors import ImportRefusedError
        from ledger_sync.models import Base

        class Undone(Session):
            def commit(self) -> None:
                self.flush()
                self.rollback()

        self.refused = ImportRefusedError
        self.engine = open_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(self.engine)
        self._path = folder / "fuzzed.xml"
        self._read: Callable[[Path], Any] = SaftFile
        self._import: Callable[..., Any] = import_saft
        self._factory = sessionmaker(self.engine, class_=Undone)

    def __call__(self, data: bytes) -> str:
        """Read a file, and import it if it can be read: ``imported``, or why it was refused."""
        self._path.write_bytes(data)
        try:
            for _ in self._read(self._path):
                pass
            self._import(self._factory, self._path, contra_account="2050")
        except self.refused as error:
            told = str(error)
            assert told.startswith(self._path.name), f"the file is not named: {told}"
            assert told.isprintable(), f"a forged line: {told!r}"
            assert len(told) < 1_000, f"an endless error: {told[:200]}"
            return told
        return "imported"


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A file with a few things in it that are otherwise than they were."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(_MUTATIONS)(data, chance)
    return data


def _put(data: bytes, start: int, end: int, new: bytes) -> bytes:
    return data[:start] + new + data[end:]


def _another_byte(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return _put(data, at, at + chance.randrange(2), chance.randbytes(chance.randrange(3)))


def _another_text(data: bytes, chance: random.Random) -> bytes:
    found = list(_TEXT.finditer(data))
    return _put(data, *chance.choice(found).span(1), chance.choice(VALUES)) if found else data


def _another_element(data: bytes, chance: random.Random) -> bytes:
    """One element goes, comes twice, or takes the place of another."""
    found = list(_ELEMENT.finditer(data))
    if not found:
        return data
    one, other = chance.choice(found), chance.choice(found)
    return _put(data, *one.span(), chance.choice((b"", one[0] * 2, other[0], one[0] + other[0])))


def _another_slice(data: bytes, chance: random.Random) -> bytes:
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return _put(data, start, end, data[start:end] * chance.randrange(3))


def _another_head(data: bytes, chance: random.Random) -> bytes:
    return chance.choice(HEADS) + data[data.find(b"<AuditFile") :]


def _another_encoding(data: bytes, chance: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(chance.choice(("latin-1", "utf-16", "utf-16-le", "utf-32", "cp500", "utf-7")), "replace")


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


_MUTATIONS: Final = (
    *(_another_byte, _another_text, _another_text, _another_text, _another_element, _another_element),
    *(_another_slice, _another_head, _another_encoding, _cut),
)


def for_seconds(target: Target, seconds: float, seed: int) -> int:
    """Try mutated files for so long; how many there were."""
    chance, count, end = random.Random(seed), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(VALID, chance)
        try:
            target(data)
        except BaseException:
            Path("saft-crash.xml").write_bytes(data)
            raise
        count += 1
    return count


def main() -> None:
    """Run as the docstring of the module says."""
    with tempfile.TemporaryDirectory() as folder:
        if "--seconds" in sys.argv:
            options = argparse.ArgumentParser()
            options.add_argument("--seconds", type=float)
            options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
            chosen = options.parse_args()
            sys.stdout.write(f"seed {chosen.seed}\n")
            sys.stdout.write(f"{for_seconds(Target(Path(folder)), chosen.seconds, chosen.seed):,} files\n")
            return
        import atheris

        with atheris.instrument_imports(include=["ledger_sync.contrib.saft"]):
            target = Target(Path(folder))

        def mutate(data: bytes, length_max: int, seed: int) -> bytes:
            chance = random.Random(seed)
            whole = data if len(data) > 100 else VALID
            new = mutated(whole, chance) if chance.random() < 0.7 else atheris.Mutate(whole, length_max)
            return bytes(new)[:length_max]

        atheris.Setup([*sys.argv, "-max_len=16384"], target, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
