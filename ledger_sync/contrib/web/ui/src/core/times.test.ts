import { expect, it } from "vitest";
import { dateText, durationText } from "./times";

it("writes a day without taking it through a time zone", () => {
  expect(dateText("2026-01-31", "nb")).toBe("31.01.2026");
  expect(dateText("2026-01-31", "en")).toBe("31 Jan 2026");
  expect(dateText(null, "en")).toBe("");
  expect(dateText("soon", "en")).toBe("soon");
});

it("writes lengths of time", () => {
  expect(durationText(42.4, "en")).toBe("42\u00a0s");
  expect(durationText(200, "en")).toBe("3\u00a0min 20\u00a0s");
  expect(durationText(7500, "nb")).toBe("2\u00a0t 5\u00a0min");
});
