import { css, html, nothing, type TemplateResult } from "lit";
import { property } from "lit/decorators.js";
import { Problem, Unreachable } from "../core/problem";
import { define, Piece } from "./piece";
import { base, controls } from "./theme";

/** What went wrong, in the server's words, with its remedy. */
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
    if (!(problem instanceof Problem)) {
      return html`<div class="notice bad" role="alert">
        <strong>${t.problem}</strong><span>${String(problem)}</span>
      </div>`;
    }
    return html`<div class="notice bad" role="alert">
      <strong lang="en">${problem.title}</strong>
      ${problem.detail ? html`<span lang="en">${problem.detail}</span>` : nothing}
      ${problem.remedy ? html`<span>${t.remedy} <span lang="en">${problem.remedy}</span></span>` : nothing}
    </div>`;
  }
}

define("ledger-sync-problem", ProblemNote);
