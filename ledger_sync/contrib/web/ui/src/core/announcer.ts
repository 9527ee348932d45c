export const QUIET_MS = 15_000;

/** Decides what a screen reader is told: every change of step or state at once, figures in between only seldom. */
export class Announcer {
  private key = "";
  private at = Number.NEGATIVE_INFINITY;

  constructor(private readonly now: () => number = Date.now) {}

  /** Whether to say something now. `key` changes when something happened that is news by itself. */
  due(key: string): boolean {
    const now = this.now();
    if (key === this.key && now - this.at < QUIET_MS) return false;
    this.key = key;
    this.at = now;
    return true;
  }
}
