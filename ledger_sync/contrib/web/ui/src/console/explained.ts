import { amountText } from "../core/amounts";
import type { ExplainedLine, ExplainedRule, Explanation } from "../core/types";
import { named } from "../i18n";
import type { Words } from "../ui/words";

/** What is said, in which language; `found`: what the library found, in its own English, where the rest leaves it out. */
export interface Said {
  text: string;
  lang: "en" | null;
  found: string | null;
}

const asCame = (text: string): Said => ({ text, lang: "en", found: null });
const ours = (text: string, found: string | null = null): Said => ({ text, lang: null, found });

/** The answer in short; null when its lines say all of it. */
export function answerOf({ entries, subject }: Explanation, { t }: Words): Said | null {
  if (!entries.length) return ours(t.noEntryNames(subject));
  const concerned = entries.some((entry) => entry.lines.some((line) => line.ledger !== null));
  return concerned ? null : ours(t.noControlLine(entries.map((entry) => entry.voucher).join(", ")));
}

/** A voucher or a document, as it is searched for, in a person's words. */
export function otherSaid(subject: string, { t }: Words): string {
  const [kind, number] = subject.split(/:(.*)/s) as [string, string?];
  return number === undefined ? t.entryTitle(subject) : `${named(t.documents, kind)} ${number}`;
}

/** What became of a line. */
export function lineSaid(line: ExplainedLine, { lang, t }: Words): Said {
  const { outcome, item, ledger } = line;
  if (ledger === null) return ours(t.noControlAccount(line.account_number));
  if (outcome === "written" && item) {
    const [amount, left] = [item.amount, item.remaining_amount].map((each) => amountText(each, lang)) as [string, string];
    return ours(t.hasItem(named(t.ledgers, ledger), amount, left));
  }
  if (outcome === "differs") return ours(t.itemDiffers, line.text);
  if (outcome === "orphan") return ours(t.itemOrphaned, line.text);
  // where the meanings are not ours, the library's sentence has them
  const meaning = t.meanings[outcome];
  return meaning ? ours(t.noItem(...meaning)) : asCame(line.text);
}

/** Rules of which the library's words name what no field does: the cut-over's date, the sources that are taken. */
const NAMING = ["before_cutover", "unsupported_source"];

/** What a rule found about a line of that outcome. */
export function ruleSaid(rule: ExplainedRule, outcome: string, { t }: Words): Said {
  const texts = t.ruleTexts[rule.name];
  if (!texts) return asCame(rule.text);
  if (rule.holds) return ours(texts[0]);
  if (outcome === "differs") return ours(t.itemDiffers, rule.text);
  return ours(texts[1], NAMING.includes(rule.name) ? rule.text : null);
}
