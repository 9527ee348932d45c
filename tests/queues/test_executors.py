"""A run on executors that others have made: a process pool begins it, and a Dask cluster finishes it."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync, Progress
from tests.conftest import make_sqlite
from tests.outcomes import by_one_process, counts, fill, written
from tests.queues.places import SMALL, lines_of

FACTORY = "tests.importable:factory"


@pytest.fixture
def dask() -> Any:
    """A cluster of two processes on loopback."""
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


# what Dask opens between its processes is closed by its own event loop, later than the tests look
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_process_pool_and_a_dask_cluster_complete_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("LEDGER_SYNC_TEST_BOOKS", f"sqlite:///{tmp_path / 'books.db'}")
    engine = make_sqlite(tmp_path / "books.db")
    # with a pause after each batch, in which somebody else can write: SQLite's lock is nobody's turn
    factory, sync = sessionmaker(engine), LedgerSync(SMALL.model_copy(update={"nice_ratio": 2.0}))
    fill(factory, "acme", 150)
    expected = by_one_process(sync, factory)

    def half_way(progress: Progress) -> None:
        if progress.processed > 10:
            with factory() as session:
                sync.pause(session, run_id)
                session.commit()

    run_id = sync.start(factory, tenant_id="acme")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        paused = sync.resume(
            FACTORY,
            run_id,
            executor=pool,
            workers=2,
            on_progress=half_way,
            progress_seconds=0,
            on_progress_error="raise",
        )
    assert paused.state == "paused"
    assert 10 < paused.processed < lines_of(expected)
    executor = request.getfixturevalue("dask").get_executor(pure=False)
    report = sync.resume(FACTORY, run_id, executor=executor, workers=2)
    assert (counts(report), written(factory)) == expected
    engine.dispose()
