import "./ledger-sync-modal";
