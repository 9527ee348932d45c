import type { Payload } from "../core/types";
import { named } from "../i18n";
import type { Words } from "../ui/words";

/** What the run is doing, in the reader's language: said from the codes and figures of the server, and from no others. */
export function messageOf({ state, step, clean, snapshot, stats }: Payload, { t }: Words): string {
  switch (state) {
    case "running": {
      const name = named(t.stepNames, step);
      const doing = snapshot.total > 0 ? t.linesOf(name, snapshot.processed, snapshot.total) : name;
      return snapshot.note ? `${doing}. ${t.held}` : doing;
    }
    case "completed":
      return clean ? t.endedProved : t.ended;
    case "completed_with_errors":
      return t.endedWithErrors(stats.errors);
    case "paused":
      return t.endedPaused;
    case "cancelled":
      return t.endedCancelled;
    default:
      return `${named(t.states, state)}.`;
  }
}
