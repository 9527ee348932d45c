// Amounts are decimal strings. They are grouped and added up digit by digit: a float never sees them,
// but for the width of a bar.

export type Lang = "en" | "nb";

const NO_BREAK = "\u00a0";
const MINUS = "\u2212";
const MARKS: Record<Lang, { group: string; point: string }> = {
  en: { group: ",", point: "." },
  nb: { group: NO_BREAK, point: "," },
};

const AMOUNT = /^([+-]?)(\d+)(?:\.(\d+))?$/;

/** An amount for people: `-1234.5` is "−1,234.50" or "−1 234,50". What is no amount is shown as it came. */
export function amountText(amount: string, lang: Lang): string {
  const match = AMOUNT.exec(amount.trim());
  if (!match) return amount;
  const [, sign, whole, fraction = ""] = match;
  const { group, point } = MARKS[lang];
  const negative = sign === "-" && /[1-9]/.test(amount);
  return (negative ? MINUS : "") + grouped(whole!, group) + point + fraction.padEnd(2, "0");
}

/** A whole number for people. */
export function countText(count: number, lang: Lang): string {
  const digits = String(Math.trunc(Math.abs(count)));
  return (count < 0 ? MINUS : "") + grouped(digits, MARKS[lang].group);
}

/** A percentage with one decimal, rounded down: it says 100 only when the server did. */
export function percentText(percent: number, lang: Lang): string {
  const tenths = Math.floor(percent * 10 + 1e-6);
  const number = `${Math.trunc(tenths / 10)}${tenths % 10 ? `${MARKS[lang].point}${tenths % 10}` : ""}`;
  return lang === "nb" ? `${number}${NO_BREAK}%` : `${number}%`;
}

/** A rate: whole when large, with one decimal when small. */
export function rateText(rate: number, lang: Lang): string {
  return rate >= 10 ? countText(Math.round(rate), lang) : rate.toFixed(1).replace(".", MARKS[lang].point);
}

/** A span of days as the server names it, such as `1-30` or `over 90`, with the dash that people write. */
export function spanOf(days: string): string {
  const dashed = days.replace("-", "\u2013");
  return dashed.charAt(0).toUpperCase() + dashed.slice(1);
}

/** The exact sum of amounts. */
export function sumAmounts(amounts: readonly string[]): string {
  const parsed = amounts.map((amount) => AMOUNT.exec(amount.trim()));
  const places = Math.max(2, ...parsed.map((match) => match?.[3]?.length ?? 0));
  let sum = 0n;
  for (const [index, match] of parsed.entries()) {
    if (!match) throw new RangeError(`not an amount: ${amounts[index]}`);
    const scaled = BigInt(match[2]! + (match[3] ?? "").padEnd(places, "0"));
    sum += match[1] === "-" ? -scaled : scaled;
  }
  const digits = String(sum < 0n ? -sum : sum).padStart(places + 1, "0");
  return `${sum < 0n ? "-" : ""}${digits.slice(0, -places)}.${digits.slice(-places)}`;
}

/** Whether an amount is nothing. */
export function isZero(amount: string): boolean {
  return !/[1-9]/.test(amount);
}

/** A size to draw; never to show. */
export function sizeOf(amount: string): number {
  const size = Number(amount);
  return Number.isFinite(size) ? size : 0;
}

function grouped(digits: string, mark: string): string {
  const trimmed = digits.replace(/^0+(?=\d)/, "");
  return trimmed.replace(/\B(?=(?:\d{3})+$)/g, mark);
}
