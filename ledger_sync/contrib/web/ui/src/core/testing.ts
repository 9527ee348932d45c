// What tests need.
import type { Payload, RunState } from "./types";

export interface PayloadChoice {
  syncId?: string;
  sequence?: number;
  state?: RunState;
  timestamp?: string;
}

/** A payload with plausible figures. */
export function payload(choice: PayloadChoice = {}): Payload {
  const { syncId = "12", sequence = 1, state = "running", timestamp = "2026-01-31T10:00:00Z" } = choice;
  return {
    syncId,
    kind: "backfill",
    tenant: "acme",
    state,
    command: null,
    dryRun: false,
    step: "vendor_invoices",
    message: "Vendor invoices: 1,200 of 5,000 lines",
    progress: 41.3,
    stats: { total: 5000, synced: 1100, skipped: 90, errors: 1 },
    errors: [],
    steps: [],
    clean: null,
    startedAt: "2026-01-31T09:59:00Z",
    finishedAt: null,
    timestamp,
    snapshot: {
      run_id: Number(syncId),
      sequence,
      tenant_id: "acme",
      state,
      note: null,
      stage: "vendor_invoices",
      stage_index: 2,
      stage_count: 7,
      processed: 1200,
      total: 5000,
      percent: 41.3,
      synced: 1100,
      existing: 9,
      skipped: { manual: 90 },
      errors: 1,
      applied: 0,
      lines_per_second: 120.5,
      eta_seconds: 31,
      elapsed_seconds: 60,
    },
  };
}
