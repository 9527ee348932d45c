import { useState } from "react";
import { LedgerSyncModal } from "./LedgerSyncModal";

/** A page that opens the dialog and says how the last sync ended. */
export function Page({ token }: { token: string }) {
  const [open, setOpen] = useState(false);
  const [ended, setEnded] = useState("");
  return (
    <main>
      <button onClick={() => setOpen(true)}>Sync the ledger</button>
      <p role="status">{ended}</p>
      <LedgerSyncModal
        open={open}
        token={token}
        onClose={() => setOpen(false)}
        onSyncComplete={({ state, stats }) => setEnded(`${state}: ${stats.synced} rows written`)}
      />
    </main>
  );
}
