import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Problem, Unreachable } from "./problem";
import { untilReached } from "./retry";

beforeEach(() => vi.useFakeTimers({ now: 0 }));
afterEach(() => vi.useRealTimers());

it("tries until there is an answer", async () => {
  const misses: number[] = [];
  let calls = 0;
  const act = async (): Promise<string> => {
    calls += 1;
    if (calls < 3) throw new Unreachable("down");
    return "here";
  };
  const answer = untilReached(act, new AbortController().signal, (retryAt) => misses.push(retryAt));
  await vi.advanceTimersByTimeAsync(3_000);
  expect(await answer).toBe("here");
  expect(misses).toEqual([1_000, 3_000]);
});

it("takes a refusal for an answer", async () => {
  const act = (): Promise<never> => Promise.reject(new Problem(403, "Not yours"));
  await expect(untilReached(act, new AbortController().signal, () => {})).rejects.toMatchObject({ status: 403 });
});

it("can be stopped while it waits", async () => {
  const stop = new AbortController();
  const act = (): Promise<never> => Promise.reject(new Unreachable("down"));
  const answer = untilReached(act, stop.signal, () => {});
  const seen = expect(answer).rejects.toBeDefined();
  await vi.advanceTimersByTimeAsync(10);
  stop.abort();
  await seen;
});
