import type { Lang } from "../core/amounts";
import { en, type Texts } from "./en";
import { nb } from "./nb";

export type { Texts } from "./en";
export type { Lang } from "../core/amounts";

export const TEXTS: Record<Lang, Texts> = { en, nb };

/** The language that is meant by a tag such as `nb-NO`, `no` or `en-GB`; English when it is none of ours. */
export function langOf(tag: string | null | undefined): Lang {
  const primary = (tag ?? "").toLowerCase().split("-")[0];
  return primary === "nb" || primary === "no" || primary === "nn" ? "nb" : "en";
}

/** A name for people; what has no name of its own is shown as the server calls it, without the underscores. */
export function named(names: Record<string, string>, key: string): string {
  const name = Object.hasOwn(names, key) ? names[key] : undefined;
  if (name !== undefined) return name;
  const words = key.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}
