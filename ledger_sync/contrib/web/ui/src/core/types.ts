// What the server sends. Our own envelope is camelCase; results of the Python library keep their snake_case.
// Amounts are strings and stay strings.

export type Amount = string;
export type Counts = Readonly<Record<string, number>>;

export type RunState = "running" | "paused" | "cancelled" | "failed" | "completed" | "completed_with_errors";
export type Command = "pause" | "resume" | "cancel";
export type StepState = "done" | "active" | "waiting";

export interface Session {
  name: string;
  tenants: string[];
  rights: string[];
  expiresAt: string | null;
  kinds: string[];
  version: string;
}

export interface ErrorLine {
  voucher: string | null;
  entryId: string | number | null;
  lineId: string | number | null;
  documentKind: string | null;
  documentId: string | number | null;
  message: string;
  at: string;
}

export interface Step {
  step: string;
  state: StepState;
  processed: number;
  synced: number;
  existing: number;
  removed: number;
  applied: number;
  posted: number;
  errors: number;
  skipped: Counts;
  found: Counts;
}

export interface Snapshot {
  run_id: string | number | null;
  sequence: number;
  tenant_id: string | number | null;
  state: string;
  note: string | null;
  stage: string;
  stage_index: number;
  stage_count: number;
  processed: number;
  total: number;
  percent: number;
  synced: number;
  existing: number;
  skipped: Counts;
  errors: number;
  applied: number;
  lines_per_second: number | null;
  eta_seconds: number | null;
  elapsed_seconds: number;
}

export interface Payload {
  syncId: string;
  kind: string;
  tenant: string | null;
  state: RunState;
  command: "pause" | "cancel" | null;
  dryRun: boolean;
  step: string;
  message: string;
  progress: number;
  stats: { total: number; synced: number; skipped: number; errors: number };
  errors: ErrorLine[];
  steps: Step[];
  clean: boolean | null;
  startedAt: string | null;
  finishedAt: string | null;
  timestamp: string;
  snapshot: Snapshot;
}

export interface StageReport extends Omit<Step, "step" | "state"> {
  stage: string;
}

export interface Run {
  syncId: string;
  kind: string;
  state: RunState;
  dryRun: boolean;
  actor: string | null;
  note: string | null;
  startedAt: string | null;
  finishedAt: string | null;
  elapsedSeconds: number;
  activeSeconds: number;
  linesPerSecond: number | null;
  processed: number;
  synced: number;
  existing: number;
  skipped: Counts;
  errors: number;
  applied: number;
  clean: boolean | null;
  stages: StageReport[];
}

export interface StartRequest {
  kinds?: string[];
  since?: string;
  until?: string;
  dryRun?: boolean;
}

export interface ProofLine {
  general_ledger_id: string | number | null;
  general_ledger_line_id: string | number | null;
  voucher: string | null;
  entry_date: string | null;
  amount: Amount;
}

export interface Cause {
  name: string;
  count: number;
  amount: Amount;
  meaning: string;
  next_step: string;
  fault: boolean;
  examples: ProofLine[];
}

export interface AccountProof {
  ledger: string;
  account_number: string;
  gl_balance: Amount;
  subledger_balance: Amount;
  difference: Amount;
  causes: Cause[];
}

export interface Finding {
  ledger: string;
  name: string;
  count: number;
  meaning: string;
  next_step: string;
  fault: boolean;
  examples: { id: string | number; text: string }[];
}

export interface Proof {
  tenant_id: string | number;
  as_of: string | null;
  accounts: AccountProof[];
  findings: Finding[];
  clean: boolean;
  runs_active: (string | number)[];
}

export interface OpenItem {
  ledger: string;
  account_number: string;
  party_id: string | number | null;
  party_number: string | null;
  party_name: string | null;
  general_ledger_id: string | number;
  general_ledger_line_id: string | number;
  voucher: string | null;
  source_type: string;
  source_id: string | number;
  kind: string;
  invoice_number: string | null;
  invoice_date: string | null;
  due_date: string | null;
  entry_date: string;
  currency: string;
  amount: Amount;
  remaining_amount: Amount;
  status: string;
}

export interface AgeingRow {
  ledger: string;
  party_id: string | number | null;
  party_number: string | null;
  party_name: string | null;
  not_due: Amount;
  overdue: Amount[];
  credits: Amount;
  total: Amount;
  without_due_date: Amount;
}

export interface Ageing {
  tenant_id: string | number;
  as_of: string;
  buckets: string[];
  rows: AgeingRow[];
}

export interface Movement {
  entry_date: string;
  voucher: string | null;
  kind: string;
  invoice_number: string | null;
  due_date: string | null;
  currency: string;
  currency_amount: Amount | null;
  amount: Amount;
  balance: Amount;
}

export interface Statement {
  ledger: string;
  party_id: string | number;
  party_number: string | null;
  party_name: string | null;
  opening: Amount;
  movements: Movement[];
  closing: Amount;
}

export interface ExplainedRule {
  name: string;
  holds: boolean;
  text: string;
}

export interface ExplainedLine {
  line_number: number | null;
  account_number: string;
  amount: Amount;
  ledger: string | null;
  outcome: string;
  text: string;
  rules: ExplainedRule[];
  item: OpenItem | null;
}

export interface ExplainedEntry {
  general_ledger_id: string | number;
  voucher: string;
  entry_date: string;
  status: string;
  source: string | null;
  lines: ExplainedLine[];
}

export interface Explanation {
  tenant_id: string | number;
  subject: string;
  text: string;
  entries: ExplainedEntry[];
  /** What else bears that number, as it is searched for. */
  others: string[];
}

/** Whether somebody works on the run, or will when it is resumed. */
export function atWork(state: RunState): boolean {
  return state === "running" || state === "paused";
}
