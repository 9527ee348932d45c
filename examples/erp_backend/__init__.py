"""An ERP backend in small: FastAPI over asynchronous sessions, its subledgers kept by ledger_sync. See README.md."""
