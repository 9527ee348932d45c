import { describe, expect, it } from "vitest";
import type { ExplainedLine, Explanation, OpenItem } from "../core/types";
import { WORDS } from "../ui/words";
import { answerOf, lineSaid, otherSaid, ruleSaid } from "./explained";

const { en, nb } = WORDS;

/** The rules in the library's order. */
const RULES = [
  "control_account",
  "draft",
  "before_cutover",
  "manual",
  "unsupported_source",
  "source_not_found",
  "zero_amount",
  "not_adopted",
  "written",
];

function line(outcome: string, more: Partial<ExplainedLine> = {}): ExplainedLine {
  const text = "The library’s own words.";
  return { line_number: 1, account_number: "2400", amount: "-100.00", ledger: "supplier", outcome, text, rules: [], item: null, ...more };
}

const item = { amount: "100.00", remaining_amount: "40.00" } as OpenItem;

function explanation(...lines: ExplainedLine[]): Explanation {
  const entry = { general_ledger_id: 1, voucher: "B-1/2026", entry_date: "2026-01-31", status: "posted", source: null, lines };
  const entries = lines.length ? [entry] : [];
  return { tenant_id: "acme", subject: "vendor_invoice 12", text: "All of it.", entries, others: [] };
}

describe("what else bears the number", () => {
  it("is a document of its kind, or a voucher", () => {
    expect(otherSaid("vendor_invoice:A:5", nb)).toBe("leverandørfaktura A:5");
    expect(otherSaid("B-17/2026", nb)).toBe("Bilag B-17/2026");
    expect(otherSaid("waybill:5", en)).toBe("Waybill 5");
  });
});

describe("an explanation", () => {
  it("is in the library’s own words in English where these say more", () => {
    expect(lineSaid(line("manual"), en)).toMatchObject({ text: "The library’s own words.", lang: "en" });
    expect(ruleSaid({ name: "draft", holds: true, text: "The entry is posted." }, "written", en).text).toBe("The entry is posted.");
  });

  it("has a sentence for every outcome in Norwegian", () => {
    for (const outcome of ["written", "missing", "differs", "orphan", ...Object.keys(en.t.reasons)]) {
      expect(lineSaid(line(outcome, { item }), nb), outcome).toMatchObject({ lang: null });
    }
    expect(lineSaid(line("written", { item }), nb).text).toContain("100,00");
    expect(lineSaid(line("written", { item }), en).text).toBe("Suppliers: an open item of 100.00, 40.00 of it open.");
    expect(lineSaid(line("no_control_account", { ledger: null }), nb).text).toContain("2400");
  });

  it("has a sentence for every rule in Norwegian", () => {
    for (const name of RULES) {
      expect(ruleSaid({ name, holds: true, text: "Fine." }, "written", nb)).toMatchObject({ lang: null, found: null });
      expect(ruleSaid({ name, holds: false, text: "Not fine." }, name, nb)).toMatchObject({ lang: null });
    }
  });

  it("adds what the library found where our sentence can’t name it", () => {
    const told = (name: string, outcome: string) => ruleSaid({ name, holds: false, text: "As found." }, outcome, nb).found;
    expect(told("unsupported_source", "unsupported_source")).toBe("As found.");
    expect(told("written", "differs")).toBe("As found.");
    expect(told("written", "missing")).toBeNull();
  });

  it("keeps what is new to it as it came", () => {
    expect(ruleSaid({ name: "brand_new", holds: true, text: "New." }, "written", nb)).toEqual({ text: "New.", lang: "en", found: null });
    expect(lineSaid(line("brand_new"), nb)).toMatchObject({ text: "The library’s own words.", lang: "en" });
  });

  it("sums up only what the lines don’t say", () => {
    expect(answerOf(explanation(), en)?.text).toContain("vendor_invoice 12");
    expect(answerOf(explanation(), nb)?.text).toContain("vendor_invoice 12");
    expect(answerOf(explanation(line("no_control_account", { ledger: null })), nb)?.text).toContain("B-1/2026");
    expect(answerOf(explanation(line("manual")), nb)).toBeNull();
  });
});
