import { expect, it } from "vitest";
import { hashOf, routeOf } from "./route";

it("reads what it writes", () => {
  const hash = hashOf("proof", { asOf: "2026-01-31", cause: "manual", account: null });
  expect(hash).toBe("#/proof?asOf=2026-01-31&cause=manual");
  expect(routeOf(hash)).toEqual({ page: "proof", id: null, query: "asOf=2026-01-31&cause=manual" });
  expect(routeOf(hashOf("runs", {}, "1/2"))).toEqual({ page: "runs", id: "1/2", query: "" });
  expect(new URLSearchParams(routeOf(hashOf("explain", { q: "B&17?/2026" })).query).get("q")).toBe("B&17?/2026");
});

it("takes a party whatever its id, and one that is cut off as it is", () => {
  const hash = hashOf("statement", { ledger: "supplier", since: "", until: "2026-01-31" }, "Å/7 %");
  expect(routeOf(hash)).toEqual({ page: "statement", id: "Å/7 %", query: "ledger=supplier&until=2026-01-31" });
  expect(routeOf("#/statement/%C3")).toEqual({ page: "statement", id: "%C3", query: "" });
});

it("falls back to the first page", () => {
  expect(routeOf("").page).toBe("runs");
  expect(routeOf("#/nowhere").page).toBe("runs");
});
