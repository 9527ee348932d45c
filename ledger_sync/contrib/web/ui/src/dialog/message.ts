import type { Payload } from "../core/types";
import { named } from "../i18n";
import type { Words } from "../ui/words";

/**
 * What the run is doing. The server says it in English; in another language the same is said from the figures that
 * came with it.
 */
export function messageOf(payload: Payload, { lang, t }: Words): { text: string; lang: string } {
  if (lang === "en") return { text: payload.message, lang };
  if (payload.state !== "running") return { text: named(t.states, payload.state), lang };
  const { processed, total } = payload.snapshot;
  const step = named(t.stepNames, payload.step);
  return { text: total > 0 ? t.linesOf(step, processed, total) : step, lang };
}
