"""The tests under every Python that is found, with the lowest and the newest dependencies.

    nox -f tests/noxfile.py                # everything
    nox -f tests/noxfile.py -- -k sqlite   # with arguments for pytest

Interpreters are looked for on the path and among pyenv's versions; one that is not there is skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

PYTHONS = ("3.11", "3.12", "3.13")
LOWEST = (
    "sqlalchemy[asyncio]==2.0.30",
    "pydantic==2.10.*",
    "blinker==1.8.*",
)

ROOT = Path(__file__).resolve().parents[1]
nox.options.error_on_missing_interpreters = False
nox.options.default_venv_backend = "venv"
nox.options.envdir = str(ROOT / ".nox")
versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
os.environ["PATH"] = os.pathsep.join([*map(str, sorted(versions.glob("3.*/bin"))), os.environ["PATH"]])


def _tests(session: nox.Session, *pins: str) -> None:
    session.install("--quiet", *pins, f"{ROOT}[test]")
    session.run("python", "-c", "import sqlalchemy, pydantic, blinker; print(sqlalchemy.__version__, pydantic.VERSION)")
    session.chdir(ROOT)
    session.run("python", "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *session.posargs)


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The newest release of everything."""
    _tests(session)


@nox.session(python=PYTHONS)
def sqlalchemy_2_0(session: nox.Session) -> None:
    """The newest release of SQLAlchemy 2.0."""
    _tests(session, "sqlalchemy[asyncio]>=2.0,<2.1")


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The lowest core dependencies that are supported; with the lowest Python, which they were made for."""
    _tests(session, *LOWEST)
