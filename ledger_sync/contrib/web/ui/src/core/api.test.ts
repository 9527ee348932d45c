import { describe, expect, it } from "vitest";
import { Api } from "./api";
import { baseOf, trimmedBase } from "./base";
import { Problem, Unreachable } from "./problem";

interface Call {
  address: string;
  init: RequestInit;
}

function serverThatAnswers(status: number, body: string, type = "application/json"): { api: Api; calls: Call[] } {
  const calls: Call[] = [];
  const fetcher = async (address: unknown, init?: RequestInit): Promise<Response> => {
    calls.push({ address: String(address), init: init ?? {} });
    return new Response(body, { status, headers: { "Content-Type": type } });
  };
  const api = new Api({ base: "/ledger", token: "secret", tenant: "acme & co" }, fetcher as typeof fetch);
  return { api, calls };
}

describe("what is asked", () => {
  it("carries the token in a header and the tenant in the query", async () => {
    const { api, calls } = serverThatAnswers(200, '{"runs": []}');
    await api.runs(20);
    expect(calls[0]?.address).toBe("/ledger/api/ledger/sync-data?tenant=acme+%26+co&limit=20");
    expect((calls[0]?.init.headers as Record<string, string>)["Authorization"]).toBe("Bearer secret");
  });

  it("is who signs in, whatever the company: a session has none", async () => {
    const { api, calls } = serverThatAnswers(200, "{}");
    await api.session();
    expect(calls[0]?.address).toBe("/ledger/api/ledger/session");
  });

  it("leaves out what was not chosen", async () => {
    const { api, calls } = serverThatAnswers(200, "{}");
    await api.ageing({ ledger: "supplier", asOf: null });
    expect(calls[0]?.address).toBe("/ledger/api/ledger/ageing?tenant=acme+%26+co&ledger=supplier");
  });

  it("sends JSON", async () => {
    const { api, calls } = serverThatAnswers(202, '{"syncId": "12"}');
    await api.start({ dryRun: true });
    expect(calls[0]?.init).toMatchObject({ method: "POST", body: '{"dryRun":true}' });
  });
});

describe("the run at work", () => {
  const listed = (...runs: [syncId: string, kind: string, state: string][]): string =>
    JSON.stringify({ runs: runs.map(([syncId, kind, state]) => ({ syncId, kind, state })) });

  it("is the one that is running, but no repair", async () => {
    const runs = listed(["4", "repair", "running"], ["3", "backfill", "completed"], ["2", "backfill", "running"]);
    const { api, calls } = serverThatAnswers(200, runs);
    await api.runAtWork();
    expect(calls[1]?.address).toMatch(/sync-data\/2\?/);
  });

  it("is one that is paused only if none came after it", async () => {
    const { api, calls } = serverThatAnswers(200, listed(["3", "backfill", "completed"], ["2", "backfill", "paused"]));
    expect(await api.runAtWork()).toBeNull();
    expect(calls.length).toBe(1);
  });
});

describe("what goes wrong", () => {
  it("is what the server said", async () => {
    const said = { title: "A sync is running", status: 409, detail: "Run 12.", remedy: "Follow it.", syncId: "12" };
    const { api } = serverThatAnswers(409, JSON.stringify(said), "application/problem+json");
    await expect(api.start({})).rejects.toMatchObject({
      status: 409,
      title: "A sync is running",
      detail: "Run 12.",
      remedy: "Follow it.",
      syncId: "12",
    });
  });

  it("is the status when something else answered", async () => {
    const { api } = serverThatAnswers(502, "<h1>Bad gateway</h1>");
    const error = await api.session().catch((error: unknown) => error);
    expect(error).toBeInstanceOf(Problem);
    expect((error as Problem).passing).toBe(true);
  });

  it("is no JSON error when a page came instead of an answer", async () => {
    const { api } = serverThatAnswers(200, "<h1>Sign in</h1>");
    await expect(api.session()).rejects.toBeInstanceOf(Problem);
  });

  it("is that nobody answered", async () => {
    const api = new Api({ base: "", token: "t" }, () => Promise.reject(new TypeError("Failed to fetch")));
    await expect(api.session()).rejects.toBeInstanceOf(Unreachable);
  });
});

describe("the mount point", () => {
  it("lies above the assets", () => {
    expect(baseOf("https://erp.test/books/ledger/assets/ledger-sync-modal.js")).toBe("https://erp.test/books/ledger");
    expect(baseOf("https://erp.test/bundle.js")).toBe("");
    expect(trimmedBase("/ledger//")).toBe("/ledger");
  });
});
