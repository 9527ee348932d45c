"""Which version this is, said here alone: a host may ship the package without its metadata."""

__version__ = "0.1.0"
