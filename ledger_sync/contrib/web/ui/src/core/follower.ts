import { backoffMs } from "./backoff";
import { isPassing, Problem, type ProblemText } from "./problem";
import { atWork, type Payload } from "./types";

/** How the follower hears of the run just now. */
export type Link =
  | { state: "connecting" }
  | { state: "live" }
  | { state: "polling" }
  | { state: "unreachable"; retryAt: number; problem: Problem | null }
  | { state: "expired"; problem: ProblemText | null }
  | { state: "refused"; problem: Problem }
  | { state: "idle" };

/** A connection that pushes payloads. */
export interface Channel {
  /** Try again at once. */
  reopen(): void;
  close(): void;
}

export interface ChannelEvents {
  /** It works: from now on payloads are pushed. */
  joined(): void;
  payload(payload: Payload): void;
  /** It is gone or never came. */
  lost(): void;
  /** The server ended it because the token has expired. */
  expired(): void;
}

export type OpenChannel = (events: ChannelEvents) => Channel;

/** The part of the HTTP interface that the follower asks. */
export interface RunSource {
  run(syncId: string, signal?: AbortSignal): Promise<Payload>;
  runAtWork(signal?: AbortSignal): Promise<Payload | null>;
}

export interface FollowerOptions {
  source: RunSource;
  openChannel: OpenChannel;
  onPayload(payload: Payload): void;
  onLink(link: Link): void;
}

export const POLL_MS = 2_000;
/** How often to look whether somebody else has begun a run. */
export const IDLE_POLL_MS = 5_000;

/**
 * Follows one run, or waits for one to begin. It listens to the socket; when that is gone it polls, and when nothing
 * answers it asks again ever more seldom. It passes on nothing but what the server said, and never anything older
 * than what it has passed on.
 */
export class RunFollower {
  private channel: Channel | null = null;
  private hearing: "opening" | "live" | "away" = "opening";
  private generation = 0;
  private wanted: string | null = null;
  private last: Payload | null = null;
  private link: Link = { state: "idle" };
  private failures = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private asking: AbortController | null = null;
  private started = false;

  constructor(private readonly options: FollowerOptions) {}

  /** Follow that run; without an id, the one that is at work now or begins next. */
  follow(syncId: string | null): void {
    if (this.wanted !== syncId) this.last = null;
    this.wanted = syncId;
    this.failures = 0;
    if (!this.started) {
      this.started = true;
      this.tellLink({ state: "connecting" });
      this.openChannel();
    }
    void this.ask();
  }

  /** Stop for good, or until the next `follow`. */
  stop(): void {
    this.started = false;
    this.generation += 1;
    this.stopAsking();
    this.channel?.close();
    this.channel = null;
    this.tellLink({ state: "idle" });
  }

  /** Don't wait for the next attempt. */
  retry(): void {
    if (!this.started) return;
    this.channel?.reopen();
    void this.ask();
  }

  /** Take a payload that came some other way, as the answer to a command does. */
  take(payload: Payload): void {
    if (this.wanted === null) {
      // What is over already is not what we wait for.
      if (!atWork(payload.state)) return;
      this.wanted = payload.syncId;
    }
    if (payload.syncId !== this.wanted) return;
    if (this.last && !supersedes(payload, this.last)) return;
    this.last = payload;
    this.options.onPayload(payload);
  }

  private openChannel(): void {
    this.hearing = "opening";
    const generation = this.generation;
    // A channel that was closed may still have a word under way; it is not listened to.
    const ours = (act: () => void): void => {
      if (generation === this.generation) act();
    };
    this.channel = this.options.openChannel({
      joined: () => ours(() => this.joined()),
      payload: (payload) => ours(() => this.take(payload)),
      lost: () => ours(() => this.lost()),
      expired: () => ours(() => this.end({ state: "expired", problem: null })),
    });
  }

  private joined(): void {
    this.hearing = "live";
    this.failures = 0;
    this.tellLink({ state: "live" });
    // What happened before the server heard of us is asked for once.
    void this.ask();
  }

  private lost(): void {
    const news = this.hearing !== "away";
    this.hearing = "away";
    if (news) void this.ask();
  }

  private async ask(): Promise<void> {
    this.stopAsking();
    if (this.over) return;
    const asking = new AbortController();
    this.asking = asking;
    try {
      const { source } = this.options;
      const payload = await (this.wanted === null
        ? source.runAtWork(asking.signal)
        : source.run(this.wanted, asking.signal));
      if (this.asking !== asking) return;
      this.failures = 0;
      if (payload) this.take(payload);
      if (this.hearing === "live") return;
      // While the socket is still being opened, an answer is no news of the link.
      if (this.hearing === "away" || this.link.state === "unreachable") this.tellLink({ state: "polling" });
      if (!this.over) this.askLater(this.wanted === null ? IDLE_POLL_MS : POLL_MS);
    } catch (error) {
      if (this.asking !== asking) return;
      this.failed(error);
    }
  }

  private failed(error: unknown): void {
    if (isPassing(error)) {
      this.failures += 1;
      const wait = backoffMs(this.failures);
      if (this.hearing !== "live") {
        const problem = error instanceof Problem ? error : null;
        this.tellLink({ state: "unreachable", retryAt: Date.now() + wait, problem });
      }
      this.askLater(wait);
      return;
    }
    if (!(error instanceof Problem)) throw error;
    this.end(error.unauthorized ? { state: "expired", problem: error } : { state: "refused", problem: error });
  }

  private askLater(wait: number): void {
    this.timer = setTimeout(() => void this.ask(), wait);
  }

  private get over(): boolean {
    return this.last !== null && !atWork(this.last.state);
  }

  private stopAsking(): void {
    clearTimeout(this.timer);
    this.asking?.abort();
    this.asking = null;
  }

  private end(link: Link): void {
    this.stop();
    this.tellLink(link);
  }

  private tellLink(link: Link): void {
    const same = link.state === this.link.state && link.state !== "unreachable";
    this.link = link;
    if (!same) this.options.onLink(link);
  }
}

/** Whether a payload of the same run says something newer. */
function supersedes(next: Payload, last: Payload): boolean {
  const [sequence, seen] = [next.snapshot.sequence, last.snapshot.sequence];
  return sequence > seen || (sequence === seen && Date.parse(next.timestamp) >= Date.parse(last.timestamp));
}
