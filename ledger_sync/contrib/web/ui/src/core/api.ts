import { Problem, Unreachable } from "./problem";
import {
  atWork,
  type Ageing,
  type Command,
  type ErrorLine,
  type Explanation,
  type OpenItem,
  type Payload,
  type Proof,
  type ProofLine,
  type Run,
  type Session,
  type StartRequest,
  type Statement,
} from "./types";

type Query = Record<string, string | number | boolean | null | undefined>;

export interface Access {
  /** Where the server is mounted: a path or an address without a slash at its end. */
  base: string;
  token: string;
  /** Left out when the token is good for one tenant only. */
  tenant?: string | null;
}

/** The HTTP interface. Every failure is a `Problem`, `Unreachable` or the caller's own abort. */
export class Api {
  constructor(
    readonly access: Access,
    private readonly fetcher: typeof fetch = (input, init) => fetch(input, init),
  ) {}

  session(signal?: AbortSignal): Promise<Session> {
    // who signs in is the same in all of their companies, and the server takes no tenant here
    return this.get("session", { tenant: null }, signal);
  }

  start(request: StartRequest): Promise<{ syncId: string; message: string }> {
    return this.send("POST", "sync-data", {}, request);
  }

  async runs(limit: number, signal?: AbortSignal): Promise<Run[]> {
    return (await this.get<{ runs: Run[] }>("sync-data", { limit }, signal)).runs;
  }

  run(syncId: string, signal?: AbortSignal): Promise<Payload> {
    return this.get(`sync-data/${encodeURIComponent(syncId)}`, {}, signal);
  }

  /** The sync at work: the newest that is running, or the newest of all if it is paused. A repair can't be followed. */
  async runAtWork(signal?: AbortSignal): Promise<Payload | null> {
    const runs = (await this.runs(20, signal)).filter((run) => run.kind === "backfill");
    const newest = runs[0];
    const found = runs.find((run) => run.state === "running") ?? (newest && atWork(newest.state) ? newest : undefined);
    return found ? this.run(found.syncId, signal) : null;
  }

  command(syncId: string, command: Command): Promise<Payload> {
    return this.send("POST", `sync-data/${encodeURIComponent(syncId)}/${command}`, {});
  }

  errors(syncId: string, limit: number, signal?: AbortSignal): Promise<{ errors: ErrorLine[]; total: number }> {
    return this.get(`sync-data/${encodeURIComponent(syncId)}/errors`, { limit }, signal);
  }

  proof(asOf: string | null, signal?: AbortSignal): Promise<Proof> {
    return this.get("proof", { asOf }, signal);
  }

  proofLines(
    of: { asOf: string | null; account: string; cause: string; limit: number },
    signal?: AbortSignal,
  ): Promise<{ lines: ProofLine[]; more: boolean }> {
    return this.get("proof/lines", of, signal);
  }

  explain(q: string, signal?: AbortSignal): Promise<Explanation> {
    return this.get("explain", { q }, signal);
  }

  openItems(
    of: { ledger: string; asOf: string | null; includeSettled: boolean; limit: number },
    signal?: AbortSignal,
  ): Promise<{ items: OpenItem[]; more: boolean }> {
    return this.get("open-items", of, signal);
  }

  ageing(of: { ledger: string; asOf: string | null }, signal?: AbortSignal): Promise<Ageing> {
    return this.get("ageing", of, signal);
  }

  statement(
    of: { ledger: string; party: string; since: string | null; until: string | null },
    signal?: AbortSignal,
  ): Promise<Statement> {
    return this.get("statement", of, signal);
  }

  private get<T>(path: string, query: Query, signal?: AbortSignal): Promise<T> {
    return this.send("GET", path, query, undefined, signal);
  }

  private async send<T>(method: string, path: string, query: Query, body?: unknown, signal?: AbortSignal): Promise<T> {
    const headers: Record<string, string> = {
      Accept: "application/json",
      Authorization: `Bearer ${this.access.token}`,
    };
    const init: RequestInit = { method, headers, cache: "no-store", credentials: "same-origin" };
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
      init.body = JSON.stringify(body);
    }
    if (signal) init.signal = signal;
    let response: Response;
    let text: string;
    try {
      response = await this.fetcher(this.address(path, query), init);
      text = await response.text();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Unreachable(String(error));
    }
    if (!response.ok) throw problemOf(response.status, response.statusText, text);
    try {
      return JSON.parse(text) as T;
    } catch {
      // a proxy's page instead of an answer
      throw new Problem(502, `${response.status} ${response.statusText}`.trim(), text.slice(0, 200));
    }
  }

  private address(path: string, query: Query): string {
    const asked = new URLSearchParams();
    for (const [name, value] of Object.entries({ tenant: this.access.tenant, ...query })) {
      if (value !== null && value !== undefined && value !== "") asked.set(name, String(value));
    }
    const search = asked.toString();
    return `${this.access.base}/api/ledger/${path}${search ? `?${search}` : ""}`;
  }
}

function problemOf(status: number, statusText: string, text: string): Problem {
  let said: Record<string, unknown> = {};
  try {
    const parsed: unknown = JSON.parse(text);
    if (parsed !== null && typeof parsed === "object") said = parsed as Record<string, unknown>;
  } catch {
    // not from our server: the status line has to do
  }
  const word = (name: string): string | null => {
    const value = said[name];
    return typeof value === "string" || typeof value === "number" ? String(value) : null;
  };
  return new Problem(
    status,
    word("title") ?? `${status} ${statusText}`.trim(),
    word("detail"),
    word("remedy"),
    word("syncId"),
  );
}
