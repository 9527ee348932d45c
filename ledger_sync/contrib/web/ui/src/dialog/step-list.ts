import { css, html, nothing, svg, type TemplateResult } from "lit";
import { property } from "lit/decorators.js";
import type { Counts, Step, StepState } from "../core/types";
import { named } from "../i18n";
import { define, Piece } from "../ui/piece";
import { base } from "../ui/theme";

const MARKS: Record<StepState, TemplateResult> = {
  done: svg`<path d="M5 10.5l3.2 3.2L15 7" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round" stroke-linejoin="round"/>`,
  active: svg`<circle cx="10" cy="10" r="4" fill="currentColor"/>`,
  waiting: svg``,
};

/** The steps of a run as a timeline. */
class StepList extends Piece {
  @property({ attribute: false }) steps: readonly Step[] = [];
  /** Whether the active step is being worked on just now. */
  @property({ type: Boolean }) working = false;

  static override styles = [
    base,
    css`
      ol {
        display: grid;
      }

      li {
        position: relative;
        display: grid;
        grid-template-columns: 1.6rem 1fr;
        gap: 0 0.8rem;
        padding-block-end: 0.7rem;
      }

      /* the thread from one step to the next */
      li:not(:last-child)::before {
        position: absolute;
        inset: 1.6rem auto 0 calc(0.8rem - 1px);
        width: 2px;
        background: var(--line);
        content: "";
      }

      li.done:not(:last-child)::before {
        background: var(--good);
      }

      .mark {
        width: 1.6rem;
        height: 1.6rem;
        border: 2px solid var(--control-line);
        border-radius: 50%;
        color: var(--ink-soft);
        transition:
          background var(--calm),
          border-color var(--calm);
      }

      .mark svg {
        display: block;
        width: 100%;
      }

      .done .mark {
        border-color: var(--good);
        background: var(--good-soft);
        color: var(--good);
      }

      .active .mark {
        border-color: var(--accent);
        background: var(--accent-soft);
        color: var(--accent);
      }

      .working .active .mark {
        animation: breathe 1.8s ease-in-out infinite;
      }

      @keyframes breathe {
        50% {
          box-shadow: 0 0 0 6px color-mix(in srgb, var(--accent) 22%, transparent);
        }
      }

      .name {
        font-weight: 600;
      }

      .waiting .name {
        color: var(--ink-soft);
        font-weight: 400;
      }

      .bad {
        color: var(--bad);
        font-weight: 600;
      }
    `,
  ];

  override render(): TemplateResult {
    const { t } = this.words;
    return html`<ol class=${this.working ? "working" : ""}>
      ${this.steps.map(
        (step) =>
          html`<li class=${step.state} aria-current=${step.state === "active" ? "step" : nothing}>
            <span class="mark"><svg viewBox="0 0 20 20" aria-hidden="true">${MARKS[step.state]}</svg></span>
            <div>
              <p class="name">
                ${named(t.stepNames, step.step)}<span class="unseen">: ${named(t.stepStates, step.state)}</span>
              </p>
              ${this.renderCounts(step)}
            </div>
          </li>`,
      )}
    </ol>`;
  }

  private renderCounts(step: Step): TemplateResult | typeof nothing {
    const { stepCounts } = this.words.t;
    const said = (["processed", "synced", "existing", "removed", "applied", "posted"] as const)
      .filter((name) => step[name] > 0)
      .map((name) => stepCounts[name](step[name]));
    const skipped = total(step.skipped);
    if (skipped > 0) said.push(stepCounts.skipped(skipped));
    said.push(...this.found(step));
    if (!said.length && !step.errors) return nothing;
    return html`<p class="soft small number">
      ${said.join(" · ")}${step.errors
        ? html`${said.length ? " · " : nothing}<span class="bad">${stepCounts.errors(step.errors)}</span>`
        : nothing}
    </p>`;
  }

  private found(step: Step): string[] {
    const { t } = this.words;
    return Object.entries(step.found).map(([kind, count]) =>
      step.step === "checking"
        ? t.foundUnposted(count, named(t.documents, kind))
        : t.foundWrong(count, named({ ...t.reasons, ...t.findingNames }, kind)),
    );
  }
}

/** All of some counts together. */
export function total(counts: Counts): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

define("ledger-sync-steps", StepList);
