import { expect, it } from "vitest";
import { hashOf, routeOf } from "./route";

it("reads what it writes", () => {
  const hash = hashOf("proof", { asOf: "2026-01-31", cause: "manual", account: null });
  expect(hash).toBe("#/proof?asOf=2026-01-31&cause=manual");
  expect(routeOf(hash)).toEqual({ page: "proof", id: null, query: "asOf=2026-01-31&cause=manual" });
  expect(routeOf(hashOf("runs", {}, "1/2"))).toEqual({ page: "runs", id: "1/2", query: "" });
  expect(new URLSearchParams(routeOf(hashOf("explain", { q: "B&17?/2026" })).query).get("q")).toBe("B&17?/2026");
});

it("falls back to the first page", () => {
  expect(routeOf("").page).toBe("runs");
  expect(routeOf("#/nowhere").page).toBe("runs");
});
