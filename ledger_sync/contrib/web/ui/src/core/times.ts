import type { Lang } from "./amounts";

const LOCALES: Record<Lang, string> = { en: "en-GB", nb: "nb-NO" };
const NB_DATE = /^(\d{4})-(\d{2})-(\d{2})$/;

/** A day, given as `2026-01-31`. It has no time zone, so it is never taken through one. */
export function dateText(date: string | null, lang: Lang): string {
  if (date === null) return "";
  const match = NB_DATE.exec(date);
  if (!match) return date;
  if (lang === "nb") return `${match[3]}.${match[2]}.${match[1]}`;
  const day = new Date(`${date}T00:00:00Z`);
  const options = { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" } as const;
  return Number.isNaN(day.getTime()) ? date : new Intl.DateTimeFormat(LOCALES.en, options).format(day);
}

/** A moment, in the reader's own time. */
export function momentText(moment: string | null, lang: Lang): string {
  if (moment === null) return "";
  const at = new Date(moment);
  if (Number.isNaN(at.getTime())) return moment;
  return new Intl.DateTimeFormat(LOCALES[lang], { dateStyle: "medium", timeStyle: "short" }).format(at);
}

/** A time of day, in the reader's own time. */
export function clockText(moment: string | null, lang: Lang): string {
  if (moment === null) return "";
  const at = new Date(moment);
  if (Number.isNaN(at.getTime())) return moment;
  return new Intl.DateTimeFormat(LOCALES[lang], { timeStyle: "medium" }).format(at);
}

const UNITS: Record<Lang, { h: string; min: string; s: string }> = {
  en: { h: "h", min: "min", s: "s" },
  nb: { h: "t", min: "min", s: "s" },
};

/** A length of time: "42 s", "3 min 20 s", "2 h 5 min". */
export function durationText(seconds: number, lang: Lang): string {
  const unit = UNITS[lang];
  const whole = Math.max(0, Math.round(seconds));
  const parts =
    whole < 60
      ? [[whole, unit.s]]
      : whole < 3600
        ? [
            [Math.floor(whole / 60), unit.min],
            [whole % 60, unit.s],
          ]
        : [
            [Math.floor(whole / 3600), unit.h],
            [Math.floor((whole % 3600) / 60), unit.min],
          ];
  return parts.map(([number, name]) => `${number}\u00a0${name}`).join(" ");
}
