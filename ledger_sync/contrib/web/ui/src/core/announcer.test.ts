import { expect, it } from "vitest";
import { Announcer, QUIET_MS } from "./announcer";

it("speaks at once when something happened, and seldom in between", () => {
  let now = 0;
  const announcer = new Announcer(() => now);
  expect(announcer.due("checking")).toBe(true);
  now += 100;
  expect(announcer.due("checking")).toBe(false);
  expect(announcer.due("settling")).toBe(true);
  now += QUIET_MS - 1;
  expect(announcer.due("settling")).toBe(false);
  now += 1;
  expect(announcer.due("settling")).toBe(true);
});
