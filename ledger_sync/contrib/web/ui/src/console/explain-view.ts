import { css, html, nothing, svg, type TemplateResult } from "lit";
import { amountText } from "../core/amounts";
import { dateText } from "../core/times";
import type { ExplainedEntry, ExplainedLine, ExplainedRule, Explanation } from "../core/types";
import { named } from "../i18n";
import { define } from "../ui/piece";
import { answerOf, lineSaid, otherSaid, ruleSaid, type Said } from "./explained";
import { hashOf } from "./route";
import { View } from "./view";

const GOOD = ["written"];
const BAD = ["missing", "differs", "orphan"];

/** Why an invoice has no row, or which it has. */
class ExplainView extends View<Explanation> {
  static override styles = [
    ...View.styles,
    css`
      form {
        display: flex;
        flex-wrap: wrap;
        gap: 0.8rem;
        align-items: end;
      }

      .top > form {
        flex: 1 1 100%;
      }

      form .field {
        flex: 1 1 16rem;
      }

      .all {
        display: grid;
        gap: 1.2rem;
      }

      .answer {
        font-size: 1.05rem;
      }

      .lines {
        display: grid;
        gap: 1rem;
      }

      .lines > li {
        display: grid;
        gap: 0.5rem;
        padding-block-start: 1rem;
        border-block-start: 1px solid var(--line);
      }

      .title {
        display: flex;
        flex-wrap: wrap;
        gap: 0.2rem 0.8rem;
        align-items: baseline;
      }

      .title .number {
        margin-inline-start: auto;
        font-weight: 600;
      }

      .rules {
        display: grid;
        gap: 0.35rem;
      }

      .rules li {
        display: grid;
        grid-template-columns: 1.3rem 1fr;
        gap: 0.6rem;
        align-items: start;
        color: var(--good);
      }

      .rules li.fails {
        color: var(--bad);
        font-weight: 600;
      }

      .rules svg {
        width: 1.3rem;
        margin-block-start: 0.1rem;
      }

      .rules span {
        color: var(--ink);
      }

      .others {
        display: flex;
        flex-wrap: wrap;
        gap: 0.3rem 1rem;
      }

      .found {
        font-size: 0.875rem;
        font-weight: 400;
      }
    `,
  ];

  private get q(): string {
    return (this.asked.get("q") ?? "").trim();
  }

  protected override fetch(signal: AbortSignal): Promise<Explanation> | null {
    return this.q ? this.api.explain(this.q, signal) : null;
  }

  protected override renderTop(): TemplateResult {
    const { t } = this.words;
    return html`<div>
        <h2>${t.explainTitle}</h2>
        <p class="soft">${t.explainLead}</p>
      </div>
      <form role="search" @submit=${this.search}>
        <label class="field"
          >${t.explainLabel}
          <input type="search" name="q" autocomplete="off" spellcheck="false" maxlength="100" .value=${this.q} />
        </label>
        <button class="primary">${t.explain}</button>
      </form>`;
  }

  protected override renderIdle(): TemplateResult {
    return html`<p class="empty">${this.words.t.explainIdle}</p>`;
  }

  protected override renderData(explanation: Explanation): TemplateResult {
    const answer = answerOf(explanation, this.words);
    return html`<div class="all">
      ${explanation.others.length ? this.renderOthers(explanation.others) : nothing}
      ${answer ? html`<p class="notice answer">${this.renderSaid(answer)}</p>` : nothing}
      ${explanation.entries.map((entry) => this.renderEntry(entry))}
    </div>`;
  }

  private renderOthers(others: readonly string[]): TemplateResult {
    return html`<div>
      <p id="others">${this.words.t.explainOthers}</p>
      <ul class="others" aria-labelledby="others">
        ${others.map((q) => html`<li><a href=${hashOf("explain", { q })}>${otherSaid(q, this.words)}</a></li>`)}
      </ul>
    </div>`;
  }

  private renderEntry(entry: ExplainedEntry): TemplateResult {
    const { t, lang } = this.words;
    return html`<section class="panel">
      <div>
        <h3>${t.entryTitle(entry.voucher)}</h3>
        <p class="soft small">
          ${t.entryFacts(dateText(entry.entry_date, lang), named(t.entryStates, entry.status), entry.source)}
        </p>
      </div>
      <ol class="lines">
        ${entry.lines.map((line) => this.renderLine(line))}
      </ol>
    </section>`;
  }

  private renderLine(line: ExplainedLine): TemplateResult {
    const { t, lang } = this.words;
    const tone = GOOD.includes(line.outcome) ? "good" : BAD.includes(line.outcome) ? "bad" : line.ledger ? "warn" : "";
    return html`<li>
      <p class="title">
        <strong>${t.lineTitle(line.line_number, line.account_number)}</strong>
        <span class="badge ${tone}">${named({ ...t.reasons, ...t.outcomes }, line.outcome)}</span>
        <span class="number">${amountText(line.amount, lang)}</span>
      </p>
      <p>${this.renderSaid(lineSaid(line, this.words))}</p>
      ${line.rules.length
        ? html`<ol class="rules" aria-label=${t.rules}>
            ${line.rules.map((rule) => this.renderRule(rule, line.outcome))}
          </ol>`
        : nothing}
    </li>`;
  }

  private renderRule(rule: ExplainedRule, outcome: string): TemplateResult {
    const { t } = this.words;
    const mark = rule.holds
      ? svg`<path d="M5 10.5l3.2 3.2L15 7" />`
      : svg`<path d="M6 6l8 8M14 6l-8 8" />`;
    return html`<li class=${rule.holds ? "" : "fails"}>
      <svg viewBox="0 0 20 20" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round">
        ${mark}
      </svg>
      <span><span class="unseen">${rule.holds ? t.ruleHolds : t.ruleFails}: </span>${this.renderSaid(ruleSaid(rule, outcome, this.words))}</span>
    </li>`;
  }

  private renderSaid({ text, lang, found }: Said): TemplateResult {
    return html`<span lang=${lang ?? nothing}>${text}</span>${found === null
        ? nothing
        : html` <span class="found" lang="en">${found}</span>`}`;
  }

  private search(event: SubmitEvent): void {
    event.preventDefault();
    const q = String(new FormData(event.currentTarget as HTMLFormElement).get("q") ?? "").trim();
    // the same question again is asked again
    if (q === this.q) void this.reload();
    else this.go("explain", { q });
  }
}

define("ledger-sync-explain", ExplainView);
