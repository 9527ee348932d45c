import { css, html, nothing, type TemplateResult } from "lit";
import { property } from "lit/decorators.js";
import { countText } from "../core/amounts";
import type { Counts } from "../core/types";
import { named } from "../i18n";
import { cssom } from "../ui/cssom";
import { define, Piece } from "../ui/piece";
import { base } from "../ui/theme";

/** How many lines were skipped, by reason. */
class SkippedList extends Piece {
  @property({ attribute: false }) skipped: Counts = {};

  static override styles = [
    base,
    css`
      ul {
        display: grid;
        gap: 0.5rem;
      }

      li {
        display: grid;
        grid-template-columns: 1fr auto;
        gap: 0.1rem 1rem;
      }

      .count {
        font-weight: 650;
        font-variant-numeric: tabular-nums;
      }

      .share {
        grid-column: 1 / -1;
        height: 5px;
        border-radius: 99px;
        background: var(--line);
      }

      .share i {
        display: block;
        width: var(--share);
        height: 100%;
        border-radius: 99px;
        background: var(--control-line);
        transition: width var(--calm) ease-out;
      }
    `,
  ];

  override render(): TemplateResult | typeof nothing {
    const { t, lang } = this.words;
    const reasons = Object.entries(this.skipped).filter(([, count]) => count > 0);
    if (!reasons.length) return nothing;
    reasons.sort(([, one], [, other]) => other - one);
    const most = reasons[0]![1];
    return html`<ul>
      ${reasons.map(
        ([reason, count]) =>
          html`<li>
            <span>${named(t.reasons, reason)}</span><span class="count">${countText(count, lang)}</span>
            <span class="share" aria-hidden="true"><i ${cssom({ "--share": `${(100 * count) / most}%` })}></i></span>
          </li>`,
      )}
    </ul>`;
  }
}

define("ledger-sync-skipped", SkippedList);
