import { css, html, nothing, svg, type PropertyValues, type TemplateResult } from "lit";
import { property, state } from "lit/decorators.js";
import type { Api } from "../core/api";
import { amountText } from "../core/amounts";
import { dateText } from "../core/times";
import type { AccountProof, Cause, ProofLine } from "../core/types";
import { named } from "../i18n";
import { define, Piece } from "../ui/piece";
import { base, controls } from "../ui/theme";
import { hashOf } from "./route";
import { waterfall, type Bar } from "./waterfall";

const LINES_MAX = 200;
/** A bar is never thinner than that, in percent. */
const THIN = 0.5;

/** One control account: its balance, the causes, the subledger's balance. Fires `choose` with a cause's name. */
class AccountProofPanel extends Piece {
  @property({ attribute: false }) account!: AccountProof;
  @property({ attribute: false }) api!: Api;
  @property() asOf = "";
  /** The cause whose lines are shown. */
  @property() chosen = "";

  @state() private lines: { lines: ProofLine[]; more: boolean } | null = null;
  @state() private problem: unknown = null;
  private asking: AbortController | null = null;

  static override styles = [
    base,
    controls,
    css`
      :host {
        display: block;
        container-type: inline-size;
      }

      section {
        display: grid;
        gap: 0.9rem;
        padding: 1.2rem;
        border: 1px solid var(--line);
        border-radius: var(--radius);
        background: var(--panel);
      }

      .head {
        display: flex;
        flex-wrap: wrap;
        gap: 0.2rem 1rem;
        align-items: baseline;
        justify-content: space-between;
      }

      .head strong {
        font-variant-numeric: tabular-nums;
      }

      .bars {
        display: grid;
        grid-template-columns: minmax(12rem, max-content) max-content minmax(8rem, 1fr);
        column-gap: 1.2rem;
      }

      .bars > li {
        display: grid;
        grid-template-columns: subgrid;
        grid-column: 1 / -1;
        align-items: center;
        min-height: 3rem;
        border-block-end: 1px solid var(--line);
      }

      .bars > li:last-child {
        border-block-end: 0;
      }

      .what {
        padding-block: 0.4rem;
      }

      .total .what,
      .total .amount {
        font-weight: 700;
      }

      .amount {
        font-variant-numeric: tabular-nums;
        text-align: end;
        white-space: nowrap;
      }

      .track {
        position: relative;
        align-self: stretch;
        min-height: 2.4rem;
      }

      svg {
        position: absolute;
        width: 100%;
        height: 100%;
      }

      rect {
        fill: var(--control-line);
      }

      .total rect {
        fill: var(--accent);
      }

      .fault rect {
        fill: var(--bad);
      }

      line {
        stroke: var(--control-line);
        stroke-dasharray: 3 3;
      }

      .behind {
        display: grid;
        grid-column: 1 / -1;
        gap: 0.6rem;
        padding-block: 0.2rem 1rem;
      }

      .behind .scroller {
        max-height: 24rem;
        overflow: auto;
      }

      @container (max-width: 34rem) {
        section {
          padding: 0.9rem;
        }

        .bars {
          grid-template-columns: 1fr max-content;
        }

        .bars .track {
          grid-column: 1 / -1;
          min-height: 1.6rem;
        }
      }
    `,
  ];

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.asking?.abort();
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has("chosen") || changed.has("asOf") || changed.has("account")) void this.fetchLines();
  }

  override render(): TemplateResult {
    const { account, words } = this;
    const { t, lang } = words;
    const bars = waterfall(account);
    return html`<section aria-labelledby="account">
      <div class="head">
        <h3 id="account">${t.account(account.account_number)} · ${named(t.ledgers, account.ledger)}</h3>
        <p>${t.difference} <strong>${amountText(account.difference, lang)}</strong></p>
      </div>
      <ol class="bars" aria-label=${t.waterfall(account.account_number)}>
        ${this.renderTotal(t.glBalance, account.gl_balance, bars.gl, "below")}
        ${account.causes.map((cause, index) => this.renderCause(cause, bars.causes[index]!))}
        ${this.renderTotal(t.subledgerBalance, account.subledger_balance, bars.subledger, "above")}
      </ol>
      ${bars.broken ? html`<p class="soft small">${t.waterfallBroken}</p>` : nothing}
    </section>`;
  }

  private renderTotal(name: string, amount: string, bar: Bar, thread: "above" | "below"): TemplateResult {
    return html`<li class="total">
      <span class="what">${name}</span>
      <span class="amount">${amountText(amount, this.words.lang)}</span>
      ${this.renderBar(bar, thread)}
    </li>`;
  }

  private renderCause(cause: Cause, bar: Bar): TemplateResult {
    const { t, lang } = this.words;
    const open = this.chosen === cause.name;
    return html`<li class=${cause.fault ? "fault" : ""}>
      <div class="what">
        <button class="link" aria-expanded=${open ? "true" : "false"} @click=${() => this.choose(open ? "" : cause.name)}>
          ${named(t.reasons, cause.name)}
        </button>
        ${cause.fault ? html`<span class="badge bad">${t.faultBadge}</span>` : nothing}
        <p class="soft small">${t.linesOfCause(cause.count)}</p>
      </div>
      <span class="amount">${amountText(cause.amount, lang)}</span>
      ${this.renderBar(bar, "both")}
      ${open ? this.renderBehind(cause) : nothing}
    </li>`;
  }

  /** What is nothing has a thread and no bar. */
  private renderBar({ from, to }: Bar, thread: "above" | "below" | "both"): TemplateResult {
    const width = Math.max(THIN, Math.abs(to - from));
    const left = Math.min(from, to, 100 - width);
    return html`<span class="track"><svg aria-hidden="true">
      ${thread === "below" ? nothing : svg`<line x1="${thread === "above" ? to : from}%" x2="${thread === "above" ? to : from}%" y1="0" y2="50%" />`}
      ${thread === "above" ? nothing : svg`<line x1="${to}%" x2="${to}%" y1="50%" y2="100%" />`}
      ${from === to ? nothing : svg`<rect x="${left}%" width="${width}%" y="22%" height="56%" rx="3" />`}
    </svg></span>`;
  }

  private renderBehind(cause: Cause): TemplateResult {
    const { t, lang } = this.words;
    const { lines, more } = this.lines ?? { lines: cause.examples, more: false };
    const translated = t.meanings[cause.name];
    const [meaning, nextStep] = translated ?? [cause.meaning, cause.next_step];
    const title = t.linesBehind(named(t.reasons, cause.name), this.account.account_number);
    return html`<div class="behind">
      <div class="notice ${cause.fault ? "bad" : ""}">
        <span lang=${translated ? nothing : "en"}>${capital(meaning)}.</span>
        <span>${t.remedy} <span lang=${translated ? nothing : "en"}>${nextStep}</span></span>
      </div>
      <ledger-sync-problem .words=${this.words} .problem=${this.problem}></ledger-sync-problem>
      <div class="scroller" role="region" aria-label=${t.scrollable(title)} tabindex="0">
        <table>
          <caption class="unseen">
            ${title}
          </caption>
          <thead>
            <tr>
              <th scope="col">${t.lineColumns.voucher}</th>
              <th scope="col">${t.lineColumns.date}</th>
              <th scope="col">${t.lineColumns.line}</th>
              <th scope="col" class="number">${t.lineColumns.amount}</th>
            </tr>
          </thead>
          <tbody>
            ${lines.map(
              (line) =>
                html`<tr>
                  <td class="nowrap">
                    ${line.voucher === null ? "–" : html`<a href=${hashOf("explain", { q: line.voucher })}>${line.voucher}</a>`}
                  </td>
                  <td class="nowrap">${dateText(line.entry_date, lang)}</td>
                  <td>${line.general_ledger_line_id ?? "–"}</td>
                  <td class="number">${amountText(line.amount, lang)}</td>
                </tr>`,
            )}
          </tbody>
        </table>
      </div>
      <p class="soft small" role="status">
        ${this.lines === null && !this.problem ? t.loading : more ? t.linesMore : lines.length ? nothing : t.linesNone}
      </p>
    </div>`;
  }

  private choose(cause: string): void {
    this.dispatchEvent(new CustomEvent<string>("choose", { detail: cause }));
  }

  private async fetchLines(): Promise<void> {
    this.asking?.abort();
    this.lines = this.problem = null;
    const { chosen, account, asOf } = this;
    if (!chosen) return;
    const asking = new AbortController();
    this.asking = asking;
    try {
      const asked = { asOf, account: account.account_number, cause: chosen, limit: LINES_MAX };
      const lines = await this.api.proofLines(asked, asking.signal);
      if (this.asking === asking) this.lines = lines;
    } catch (problem) {
      if (!asking.signal.aborted) this.problem = problem;
    }
  }
}

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

define("ledger-sync-account-proof", AccountProofPanel);
