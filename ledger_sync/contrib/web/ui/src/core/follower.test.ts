import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { IDLE_POLL_MS, POLL_MS, RunFollower, type ChannelEvents, type Link, type RunSource } from "./follower";
import { Problem, Unreachable } from "./problem";
import { payload } from "./testing";
import type { Payload } from "./types";

class FakeSocket {
  events!: ChannelEvents;
  opened = 0;
  closed = 0;
  reopened = 0;

  open = (events: ChannelEvents) => {
    this.events = events;
    this.opened += 1;
    return { reopen: () => (this.reopened += 1), close: () => (this.closed += 1) };
  };
}

class FakeServer implements RunSource {
  asked: (string | null)[] = [];
  answer: () => Payload | null | Promise<never> = () => null;

  async run(syncId: string): Promise<Payload> {
    this.asked.push(syncId);
    return (await this.answer()) as Payload;
  }

  async runAtWork(): Promise<Payload | null> {
    this.asked.push(null);
    return this.answer();
  }
}

const down = (): Promise<never> => Promise.reject(new Unreachable("no answer"));
const says = (problem: Problem) => (): Promise<never> => Promise.reject(problem);
const settled = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);

let socket: FakeSocket;
let server: FakeServer;
let told: Payload[];
let links: Link[];
let follower: RunFollower;

beforeEach(() => {
  vi.useFakeTimers({ now: 0 });
  socket = new FakeSocket();
  server = new FakeServer();
  told = [];
  links = [];
  follower = new RunFollower({
    source: server,
    openChannel: socket.open,
    onPayload: (payload) => told.push(payload),
    onLink: (link) => links.push(link),
  });
});

afterEach(() => {
  follower.stop();
  vi.useRealTimers();
});

const link = (): string => links.at(-1)?.state ?? "none";

describe("listening", () => {
  it("passes on what the socket pushes and asks for nothing more", async () => {
    server.answer = () => payload({ sequence: 1 });
    follower.follow("12");
    socket.events.joined();
    await settled();
    const asked = server.asked.length;
    socket.events.payload(payload({ sequence: 2 }));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(told.map((each) => each.snapshot.sequence)).toEqual([1, 2]);
    expect(server.asked.length).toBe(asked);
    expect(link()).toBe("live");
  });

  it("drops what is older than what it has told", async () => {
    follower.follow(null);
    for (const sequence of [4, 3, 5, 1]) socket.events.payload(payload({ sequence }));
    expect(told.map((each) => each.snapshot.sequence)).toEqual([4, 5]);
  });

  it("takes the newer of two with one sequence", () => {
    follower.follow(null);
    for (const second of [2, 1, 3]) {
      socket.events.payload(payload({ sequence: 4, timestamp: `2026-01-31T10:00:0${second}Z` }));
    }
    expect(told.map((each) => each.timestamp.slice(-3, -1))).toEqual(["02", "03"]);
  });

  it("ignores other runs", () => {
    follower.follow("12");
    socket.events.payload(payload({ syncId: "13" }));
    expect(told).toEqual([]);
  });

  it("without an id takes the run that begins, but none that is over", () => {
    follower.follow(null);
    socket.events.payload(payload({ syncId: "11", state: "completed" }));
    expect(told).toEqual([]);
    socket.events.payload(payload({ syncId: "12" }));
    socket.events.payload(payload({ syncId: "13", sequence: 9 }));
    expect(told.map((each) => each.syncId)).toEqual(["12"]);
  });

  it("finds the run at work by itself", async () => {
    server.answer = () => payload({ syncId: "12" });
    follower.follow(null);
    await settled();
    expect(told.map((each) => each.syncId)).toEqual(["12"]);
  });

  it("takes up another run when told to", async () => {
    follower.follow(null);
    socket.events.payload(payload({ syncId: "12", sequence: 50, state: "completed" }));
    server.answer = () => payload({ syncId: "13", sequence: 1 });
    follower.follow("13");
    await settled();
    expect(told.at(-1)?.syncId).toBe("13");
    expect(socket.opened).toBe(1);
  });
});

describe("without the socket", () => {
  it("polls and says so, until the socket is back", async () => {
    let sequence = 0;
    server.answer = () => payload({ sequence: ++sequence });
    follower.follow("12");
    await settled();
    expect(link()).toBe("connecting");
    socket.events.lost();
    await settled();
    expect(link()).toBe("polling");
    await vi.advanceTimersByTimeAsync(3 * POLL_MS);
    expect(told.length).toBe(5);
    socket.events.joined();
    await settled();
    expect(link()).toBe("live");
    const asked = server.asked.length;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(server.asked.length).toBe(asked);
  });

  it("asks once more when the socket is back, for what it missed", async () => {
    server.answer = () => payload({ sequence: 1 });
    follower.follow("12");
    socket.events.joined();
    await settled();
    socket.events.lost();
    await settled();
    server.answer = () => payload({ sequence: 2, state: "completed" });
    socket.events.joined();
    await settled();
    expect(told.at(-1)?.state).toBe("completed");
  });

  it("waits for a run to begin", async () => {
    follower.follow(null);
    socket.events.lost();
    await settled();
    server.answer = () => payload({ syncId: "12" });
    await vi.advanceTimersByTimeAsync(IDLE_POLL_MS);
    expect(told.map((each) => each.syncId)).toEqual(["12"]);
    await vi.advanceTimersByTimeAsync(POLL_MS);
    expect(server.asked.at(-1)).toBe("12");
  });

  it("stops asking when the run is over", async () => {
    server.answer = () => payload({ state: "completed" });
    follower.follow("12");
    socket.events.lost();
    await settled();
    const asked = server.asked.length;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(server.asked.length).toBe(asked);
  });
});

describe("without the server", () => {
  it("says so and asks ever more seldom", async () => {
    server.answer = down;
    follower.follow("12");
    await settled();
    expect(links.at(-1)).toEqual({ state: "unreachable", retryAt: 1_000, problem: null });
    for (const seconds of [1, 2, 4, 8, 16, 30, 30]) {
      const asked = server.asked.length;
      await vi.advanceTimersByTimeAsync(seconds * 1_000 - 1);
      expect(server.asked.length).toBe(asked);
      await vi.advanceTimersByTimeAsync(1);
      expect(server.asked.length).toBe(asked + 1);
    }
  });

  it("goes on when the server is back", async () => {
    server.answer = down;
    follower.follow("12");
    socket.events.lost();
    await settled();
    server.answer = () => payload({ sequence: 7 });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(link()).toBe("polling");
    expect(told.at(-1)?.snapshot.sequence).toBe(7);
    server.answer = down;
    await vi.advanceTimersByTimeAsync(POLL_MS);
    expect(links.at(-1)).toMatchObject({ state: "unreachable", retryAt: Date.now() + 1_000 });
  });

  it("takes a sick server for one that may recover, and keeps what it said", async () => {
    const problem = new Problem(503, "Busy");
    server.answer = says(problem);
    follower.follow("12");
    socket.events.lost();
    await settled();
    expect(links.at(-1)).toMatchObject({ state: "unreachable", problem });
  });

  it("tries at once when asked to", async () => {
    server.answer = down;
    follower.follow("12");
    await settled();
    server.answer = () => payload();
    follower.retry();
    await settled();
    expect(told.length).toBe(1);
    expect(socket.reopened).toBe(1);
  });
});

describe("the end", () => {
  it("stops when the token is no longer good", async () => {
    const problem = new Problem(401, "Token expired");
    server.answer = says(problem);
    follower.follow("12");
    await settled();
    expect(links.at(-1)).toEqual({ state: "expired", problem });
    expect(socket.closed).toBe(1);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(server.asked.length).toBe(1);
  });

  it("stops when the socket says that the session is over", async () => {
    follower.follow(null);
    socket.events.expired();
    expect(link()).toBe("expired");
    socket.events.payload(payload());
    expect(told).toEqual([]);
  });

  it("says what the server refuses", async () => {
    const problem = new Problem(404, "No such sync");
    server.answer = says(problem);
    follower.follow("99");
    await settled();
    expect(links.at(-1)).toEqual({ state: "refused", problem });
  });

  it("is silent after stop, and an answer under way is dropped", async () => {
    server.answer = () => payload();
    follower.follow("12");
    follower.stop();
    await settled();
    expect(told).toEqual([]);
    expect(link()).toBe("idle");
  });

  it("can be taken up again", async () => {
    follower.follow(null);
    follower.stop();
    follower.follow(null);
    socket.events.payload(payload());
    expect(told.length).toBe(1);
    expect(socket.opened).toBe(2);
  });
});
