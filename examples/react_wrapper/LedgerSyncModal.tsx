import { createElement, useEffect, useRef } from "react";

/** What the events carry; see the HTTP interface for the rest of it. */
export interface SyncPayload {
  syncId: string;
  state: "running" | "paused" | "cancelled" | "failed" | "completed" | "completed_with_errors";
  dryRun: boolean;
  stats: { total: number; synced: number; skipped: number; errors: number };
  clean: boolean | null;
}

export interface LedgerSyncModalProps {
  open: boolean;
  onClose: () => void;
  onSyncComplete?: (payload: SyncPayload) => void;
  onSyncError?: (payload: SyncPayload) => void;
  /** A new token is needed. */
  onExpired?: () => void;
  token: string;
  tenant?: string;
  /** Where the server is mounted. */
  base?: string;
  /** Follow that run. */
  syncId?: string;
  lang?: "nb" | "en";
}

interface Element extends HTMLElement {
  open: boolean;
  token: string;
  tenant: string;
  base: string;
  syncId: string;
}

/** `<ledger-sync-modal>` for React 18 and 19. */
export function LedgerSyncModal(props: LedgerSyncModalProps) {
  const { open, token, tenant = "", base = "/ledger", syncId = "", lang } = props;
  const element = useRef<Element>(null);
  // Listeners are set once and call what was given last.
  const latest = useRef(props);
  useEffect(() => {
    latest.current = props;
  });

  useEffect(() => {
    // The server that is asked serves the script, too: they are always of one version.
    void import(/* @vite-ignore */ /* webpackIgnore: true */ `${base}/assets/ledger-sync-modal.js`);
  }, [base]);

  // Properties, not attributes: so the token is not to be seen in the page.
  useEffect(() => {
    if (element.current) Object.assign(element.current, { token, tenant, base, syncId, open });
  }, [token, tenant, base, syncId, open]);

  useEffect(() => {
    const dialog = element.current;
    if (!dialog) return;
    const listeners: Record<string, (event: Event) => void> = {
      "ledger-sync-close": () => latest.current.onClose(),
      "sync-complete": (event) => latest.current.onSyncComplete?.((event as CustomEvent<SyncPayload>).detail),
      "sync-error": (event) => latest.current.onSyncError?.((event as CustomEvent<SyncPayload>).detail),
      "ledger-sync-expired": () => latest.current.onExpired?.(),
    };
    for (const [name, listener] of Object.entries(listeners)) dialog.addEventListener(name, listener);
    return () => {
      for (const [name, listener] of Object.entries(listeners)) dialog.removeEventListener(name, listener);
    };
  }, []);

  return createElement("ledger-sync-modal", { ref: element, lang });
}
