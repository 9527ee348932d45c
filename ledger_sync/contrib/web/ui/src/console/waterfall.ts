import { sizeOf } from "../core/amounts";
import type { AccountProof } from "../core/types";

/** A bar from one level to another, both in percent of the width. */
export interface Bar {
  from: number;
  to: number;
}

export interface Waterfall {
  gl: Bar;
  causes: Bar[];
  subledger: Bar;
  /** Whether the bars begin away from zero. */
  broken: boolean;
}

/** Causes smaller than this share of the balance could not be seen on bars that begin at zero. */
const SEEN = 0.15;

/** Where the bars of an account are: the general ledger, less each cause, down to the subledger. */
export function waterfall(account: AccountProof): Waterfall {
  const levels = [sizeOf(account.gl_balance)];
  for (const cause of account.causes) levels.push(levels.at(-1)! - sizeOf(cause.amount));
  const end = sizeOf(account.subledger_balance);
  const [least, most] = [Math.min(...levels, end), Math.max(...levels, end)];
  const spread = most - least;
  const broken = spread > 0 && least > 0 && spread < SEEN * most;
  const low = broken ? least - spread / 2 : Math.min(0, least);
  const high = broken ? most : Math.max(0, most);
  const scale = (level: number): number => (high === low ? 0 : (100 * (level - low)) / (high - low));
  const origin = broken ? 0 : scale(0);
  return {
    gl: { from: origin, to: scale(levels[0]!) },
    causes: account.causes.map((_, index) => ({ from: scale(levels[index]!), to: scale(levels[index + 1]!) })),
    subledger: { from: origin, to: scale(end) },
    broken,
  };
}
