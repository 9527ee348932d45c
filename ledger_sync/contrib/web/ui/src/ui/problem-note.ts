import { css, html, nothing, type TemplateResult } from "lit";
import { property } from "lit/decorators.js";
import { Expired, Problem, Unreachable } from "../core/problem";
import { define, Piece } from "./piece";
import { base, controls } from "./theme";
import type { Words } from "./words";

/**
 * What kind of refusal a problem is, in the reader's language. A kind that has no words of ours, such as a proxy's, is
 * told in those that came.
 */
export function kindOf(problem: Problem, { t }: Words): TemplateResult {
  const kind = t.problems[problem.status];
  return kind === undefined ? html`<span lang="en">${problem.title}</span>` : html`${kind}`;
}

/** What went wrong. What the server alone knows of it, the detail and the remedy, is in its own English. */
class ProblemNote extends Piece {
  @property({ attribute: false }) problem: unknown = null;

  static override styles = [
    base,
    controls,
    css`
      :host {
        display: block;
      }
    `,
  ];

  override render(): TemplateResult | typeof nothing {
    const { problem } = this;
    const { t } = this.words;
    if (!problem) return nothing;
    if (problem instanceof Unreachable) {
      return html`<div class="notice bad" role="alert"><strong>${t.unreachable}</strong></div>`;
    }
    if (problem instanceof Expired) {
      return html`<div class="notice bad" role="alert"><strong>${t.expiredTitle}</strong><span>${t.expiredText}</span></div>`;
    }
    if (!(problem instanceof Problem)) {
      return html`<div class="notice bad" role="alert">
        <strong>${t.problem}</strong><span>${String(problem)}</span>
      </div>`;
    }
    return html`<div class="notice bad" role="alert">
      <strong>${kindOf(problem, this.words)}</strong>
      ${problem.detail ? html`<span lang="en">${problem.detail}</span>` : nothing}
      ${problem.remedy ? html`<span>${t.remedy} <span lang="en">${problem.remedy}</span></span>` : nothing}
    </div>`;
  }
}

define("ledger-sync-problem", ProblemNote);
