"""Files that are made to do harm: each is refused with its name and the reason, in bounded memory and time."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker

from ledger_sync.contrib.saft import import_saft
from ledger_sync.errors import ImportRefusedError
from tests.budget import at_length
from tests.fuzz.saft import VALID, Target, mutated
from tests.test_saft import is_empty

MIB = 1 << 20
DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>'
BODY = VALID.removeprefix(DECLARATION)
QUADRATIC = b'<!DOCTYPE a [<!ENTITY a "%s">]>' % (b"a" * 50_000)


def inside(content: bytes) -> bytes:
    """A file with more in its first transaction."""
    return VALID.replace(b"<Transaction>", b"<Transaction>" + content, 1)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "quadratic blow-up": (
        lambda: DECLARATION + QUADRATIC + BODY.replace(b"sale", b"&a;" * 50_000),
        "document type",
    ),
    "a document type behind a long comment": (
        lambda: DECLARATION + b"<!--" + b" " * 2 * MIB + b"-->" + QUADRATIC + BODY.replace(b"sale", b"&a;" * 50_000),
        "root element",
    ),
    "a document type behind many blanks": (
        lambda: DECLARATION + b" " * 2 * MIB + QUADRATIC + BODY,
        "not XML",
    ),
    "a parameter entity": (
        lambda: DECLARATION + b'<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;]>' + BODY,
        "document type",
    ),
    "a document type in other letters": (lambda: DECLARATION + b"<!DocType a>" + BODY, "document type"),
    "a document type in the middle": (lambda: inside(b'<!DOCTYPE a [<!ENTITY x "y">]>'), "not well-formed"),
    "an inclusion": (
        lambda: inside(b'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/>').replace(
            b"<TransactionID>1<", b"<TransactionID><"
        ),
        "has no TransactionID",
    ),
    "UTF-16 that is Latin-1": (
        lambda: VALID.decode().encode("latin-1").replace(b"UTF-8", b"UTF-16", 1),
        "not well-formed",
    ),
    "UTF-8 that is Latin-1": (lambda: VALID.decode().encode("latin-1"), "not well-formed"),
    "UTF-32": (lambda: VALID.decode().replace("UTF-8", "UTF-32", 1).encode("utf-32"), "not"),
    "EBCDIC": (lambda: VALID.decode().replace("UTF-8", "cp500", 1).encode("cp500"), "not XML"),
    "half a character at the end": (lambda: VALID[: VALID.index("ø".encode()) + 1], "cut off"),
    "half a tag at the end": (lambda: VALID[:-3], "cut off"),
    "something behind the end": (lambda: VALID + b"<AuditFile/>", "not well-formed"),
    "a NUL": (lambda: VALID.replace(b"sale", b"sa\0le"), "not well-formed"),
    "half a surrogate pair": (lambda: VALID.replace(b"sale", b"&#xD800;"), "not well-formed"),
    "a huge attribute": (lambda: inside(b'<Line a="' + b"a" * 20 * MIB + b'"/>'), "not well-formed"),
    "a huge namespace": (
        lambda: VALID.replace(b"urn:StandardAuditFile", b"urn:" + b"a" * MIB + b"StandardAuditFile", 1),
        "The namespace is urn:aaa",
    ),
    "a namespace with a brace": (
        lambda: VALID.replace(b'xmlns="urn:', b'xmlns="urn:}', 1),
        "The namespace is urn:}Standard",
    ),
    "a huge name": (lambda: inside(b"<" + b"a" * MIB + b"/>"), "not well-formed"),
    "a huge text": (lambda: VALID.replace(b"sale", b"a" * 20 * MIB), "not well-formed"),
    "a huge number": (lambda: VALID.replace(b">50<", b">" + b"9" * MIB + b"<"), "beyond the bound"),
    "a huge year": (lambda: VALID.replace(b">2024<", b">" + b"2" * 2_000 + b"<"), "has 2000 characters"),
    "deep nesting": (lambda: inside(b"<Line>" * 100_000), "not well-formed"),
    "a hundred thousand attributes": (
        lambda: inside(b"<Line %s/>" % b" ".join(b'a%d="b"' % number for number in range(100_000))),
        "neither DebitAmount nor CreditAmount",
    ),
    "a forged line in a number": (
        lambda: VALID.replace(b"<AccountID>3000</AccountID></Account>", b"</Account>").replace(
            b">3000<", b">30\n&#x202E;ok<"
        ),
        "Account has no AccountID",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_with_its_name_and_the_reason(
    sqlite_engine: Engine, tmp_path: Path, what: str
) -> None:
    make, reason = HOSTILE[what]
    path = tmp_path / "hostile.xml"
    path.write_bytes(make())
    with pytest.raises(ImportRefusedError) as caught:
        import_saft(sessionmaker(sqlite_engine), path)
    told = str(caught.value)
    assert told.startswith("hostile.xml")
    assert caught.value.file == "hostile.xml"
    assert reason in told
    assert told.isprintable()
    assert len(told) < 500
    assert is_empty(sqlite_engine)


def test_hostile_files_take_no_more_memory_than_an_element_may(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    for number, (make, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.xml").write_bytes(make())
    script = """
        import resource, sys
        from pathlib import Path
        from ledger_sync.contrib.saft.read import SaftFile
        from ledger_sync.errors import ImportRefusedError
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in sorted(Path(sys.argv[1]).iterdir()):
            try:
                for record in SaftFile(path):
                    pass
            except ImportRefusedError:
                pass
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 200 * MIB


def test_a_company_that_was_named_gets_no_other_companys_file(sqlite_engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "file.xml"
    path.write_bytes(VALID)
    factory = sessionmaker(sqlite_engine)
    with pytest.raises(ImportRefusedError, match="company 987654321, not of 123456789"):
        import_saft(factory, path, tenant_id="123456789")
    assert is_empty(sqlite_engine)
    assert import_saft(factory, path, tenant_id="987654321").entries == 3


def test_nothing_but_the_librarys_own_errors_comes_out_of_files_that_nobody_wrote(tmp_path: Path) -> None:
    seed = 20260301 if at_length(1, 0) else random.SystemRandom().randrange(2**32)
    print("seed", seed)  # noqa: T201
    target, chance = Target(tmp_path), random.Random(seed)
    assert target(VALID) == "imported"
    for number in range(at_length(400, 20_000)):
        data = mutated(VALID, chance)
        try:
            target(data)
        except Exception as error:
            raise AssertionError(f"file {number} of seed {seed}: {error!r}\n{data!r}") from error
    target.engine.dispose()
