import { css, html, type TemplateResult } from "lit";
import { property } from "lit/decorators.js";
import { countText } from "../core/amounts";
import type { Payload } from "../core/types";
import { define, Piece } from "../ui/piece";
import { base } from "../ui/theme";

/** The counts of a run, each on a card. */
class CountCards extends Piece {
  @property({ attribute: false }) payload!: Payload;

  static override styles = [
    base,
    css`
      dl {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(max(8.2rem, 30%), 1fr));
        gap: 0.6rem;
      }

      div {
        display: grid;
        padding: 0.7rem 0.9rem;
        border: 1px solid var(--line);
        border-radius: var(--radius);
        background: var(--card);
      }

      dt {
        color: var(--ink-soft);
        font-size: 0.875rem;
      }

      dd {
        font-size: 1.5rem;
        font-weight: 700;
        line-height: 1.3;
        letter-spacing: -0.01em;
        font-variant-numeric: tabular-nums;
      }

      .good dd {
        color: var(--good);
      }

      .bad {
        border-color: var(--bad);
        background: var(--bad-soft);
      }

      .bad dt,
      .bad dd {
        color: var(--bad);
      }
    `,
  ];

  override render(): TemplateResult {
    const { t, lang } = this.words;
    const { stats, snapshot, dryRun } = this.payload;
    const cards: [name: string, count: number, tone: string][] = [
      [t.cards.total, stats.total, ""],
      [dryRun ? t.cards.wouldSync : t.cards.synced, stats.synced, "good"],
      [t.cards.existing, snapshot.existing, ""],
      [t.cards.skipped, stats.skipped, ""],
      [t.cards.applied, snapshot.applied, ""],
      [t.cards.errors, stats.errors, stats.errors ? "bad" : ""],
    ];
    return html`<dl>
      ${cards.map(
        ([name, count, tone]) => html`<div class=${tone}><dt>${name}</dt><dd>${countText(count, lang)}</dd></div>`,
      )}
    </dl>`;
  }
}

define("ledger-sync-counts", CountCards);
