import { describe, expect, it } from "vitest";
import { payload } from "../core/testing";
import type { Payload, RunState } from "../core/types";
import { WORDS } from "../ui/words";
import { messageOf } from "./message";

const { en, nb } = WORDS;

function at(state: RunState, more: Partial<Payload> = {}): Payload {
  return { ...payload({ state }), message: "The server’s own words.", ...more };
}

describe("what a run is doing", () => {
  it("is said from its step and its lines", () => {
    expect(messageOf(at("running"), en)).toBe("Vendor invoices: 1,200 of 5,000 lines");
    expect(messageOf(at("running"), nb)).toBe("Leverandørfakturaer: 1\u00a0200 av 5\u00a0000 linjer");
  });

  it("has no lines before the server has counted them", () => {
    const early = at("running", { step: "checking" });
    const uncounted = { ...early, snapshot: { ...early.snapshot, processed: 0, total: 0 } };
    expect(messageOf(uncounted, en)).toBe("Checking");
    expect(messageOf(uncounted, nb)).toBe("Kontroll");
  });

  it("says that the host holds it", () => {
    const running = at("running");
    const held = { ...running, snapshot: { ...running.snapshot, note: "replication lags" } };
    expect(messageOf(held, en)).toBe("Vendor invoices: 1,200 of 5,000 lines. Held for the moment.");
    expect(messageOf(held, nb)).toMatch(/linjer\. Holdes igjen inntil videre\.$/);
  });

  it("claims a proof only when the server told of one", () => {
    expect(messageOf(at("completed", { clean: true }), en)).toBe("Done: the books are proved.");
    for (const clean of [null, false]) expect(messageOf(at("completed", { clean }), en)).toBe("Done.");
  });

  it("counts the errors that it ended with", () => {
    expect(messageOf(at("completed_with_errors"), en)).toBe("Done, with 1 error.");
    expect(messageOf(at("completed_with_errors"), nb)).toBe("Ferdig, med 1 feil.");
  });

  it.each(["running", "paused", "cancelled", "failed", "completed", "completed_with_errors"] as const)(
    "%s is never told in the server’s words",
    (state) => {
      for (const words of [en, nb]) expect(messageOf(at(state), words)).not.toContain("own words");
      expect(messageOf(at(state), en)).not.toBe(messageOf(at(state), nb));
    },
  );

  it("names a state that is new to it", () => {
    expect(messageOf(at("brand_new" as RunState), nb)).toBe("Brand new.");
  });
});
