import type { RunState } from "../core/types";

const TONES: Record<RunState, string> = {
  running: "",
  paused: "warn",
  cancelled: "warn",
  failed: "bad",
  completed: "good",
  completed_with_errors: "warn",
};

/** The colour of a state. */
export function toneOf(state: RunState): string {
  return TONES[state] ?? "";
}
