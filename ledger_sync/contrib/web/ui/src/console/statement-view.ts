import { css, html, nothing, type PropertyValues, type TemplateResult } from "lit";
import { property } from "lit/decorators.js";
import { amountText, sumAmounts } from "../core/amounts";
import { Problem } from "../core/problem";
import { dateText } from "../core/times";
import type { Movement, Statement } from "../core/types";
import { named } from "../i18n";
import { define } from "../ui/piece";
import { dateField } from "./fields";
import { hashOf } from "./route";
import { View } from "./view";

/** The answer about a party; without a statement when it has nothing until the end of the period. */
interface Answer {
  statement: Statement | null;
}

/** One party's account over a period: what it came in with, what happened, what it left with. */
class StatementView extends View<Answer> {
  @property() party = "";
  @property({ attribute: false }) ledgers: readonly string[] = [];

  static override styles = [
    ...View.styles,
    css`
      .all {
        display: grid;
        gap: 1.2rem;
      }

      .facts {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(min(100%, 12rem), 1fr));
        gap: 0.8rem;
      }

      .facts div {
        padding: 0.9rem 1.1rem;
        border: 1px solid var(--line);
        border-radius: var(--radius);
        background: var(--panel);
      }

      .facts dt {
        color: var(--ink-soft);
        font-size: 0.875rem;
      }

      .facts dd {
        font-size: 1.35rem;
        font-weight: 700;
        font-variant-numeric: tabular-nums;
      }

      .opening > * {
        font-weight: 600;
      }
    `,
  ];

  private get ledger(): string {
    return this.asked.get("ledger") ?? this.ledgers[0] ?? "supplier";
  }

  private get since(): string {
    return this.asked.get("since") ?? "";
  }

  private get until(): string {
    return this.asked.get("until") ?? "";
  }

  private get reversed(): boolean {
    // ISO dates sort as text
    return this.since !== "" && this.until !== "" && this.since > this.until;
  }

  protected override asksAnew(changed: PropertyValues): boolean {
    return changed.has("party") || super.asksAnew(changed);
  }

  protected override fetch(signal: AbortSignal): Promise<Answer> | null {
    if (!this.party || this.reversed) return null;
    const { party, ledger, since, until } = this;
    return this.api.statement({ party, ledger, since, until }, signal).then(
      (statement) => ({ statement }),
      (problem: unknown) => {
        if (problem instanceof Problem && problem.status === 404) return { statement: null };
        throw problem;
      },
    );
  }

  protected override renderTop(): TemplateResult {
    const { t } = this.words;
    const whose = this.data?.statement ?? null;
    const chosen = { ledger: this.ledger, since: this.since, until: this.until };
    const period = (change: Partial<typeof chosen>): void => this.go("statement", { ...chosen, ...change }, this.party);
    return html`<div>
        <a href=${hashOf("items", { ledger: this.ledger })}>${t.backToItems}</a>
        <h2>${t.statementTitle}${this.party ? html`: ${whose?.party_name ?? this.party}` : nothing}</h2>
        ${whose
          ? html`<p class="soft">
              ${named(t.ledgers, whose.ledger)}${whose.party_number === null ? nothing : ` · ${t.partyNumber(whose.party_number)}`}
            </p>`
          : nothing}
      </div>
      ${this.party
        ? html`<div class="filters">
            ${dateField(t.since, this.since, (since) => period({ since }))}
            ${dateField(t.until, this.until, (until) => period({ until }))}
            <button @click=${this.reload}>${t.reload}</button>
          </div>`
        : nothing}`;
  }

  protected override renderIdle(): TemplateResult {
    const { t } = this.words;
    if (this.reversed) return html`<p class="notice bad" role="alert">${t.datesReversed}</p>`;
    return html`<p class="empty">${t.statementIdle}</p>`;
  }

  protected override renderData({ statement }: Answer): TemplateResult {
    const { t, lang } = this.words;
    if (!statement) return html`<p class="empty">${t.statementEmpty}</p>`;
    const { opening, movements, closing } = statement;
    const moved = sumAmounts(movements.map((movement) => movement.amount));
    return html`<div class="all">
      <dl class="facts">
        <div><dt>${t.openingBalance(dateText(this.since || null, lang))}</dt><dd>${amountText(opening, lang)}</dd></div>
        <div><dt>${t.movements(movements.length)}</dt><dd>${amountText(moved, lang)}</dd></div>
        <div><dt>${t.closingBalance(dateText(this.until || null, lang))}</dt><dd>${amountText(closing, lang)}</dd></div>
      </dl>
      <div class="scroller" role="region" aria-label=${t.scrollable(t.statementTitle)} tabindex="0">
        <table>
          <caption class="unseen">
            ${t.statementTitle}
          </caption>
          <thead>
            <tr>
              <th scope="col">${t.itemColumns.date}</th>
              <th scope="col">${t.itemColumns.document}</th>
              <th scope="col">${t.itemColumns.voucher}</th>
              <th scope="col">${t.itemColumns.due}</th>
              <th scope="col" class="number">${t.itemColumns.amount}</th>
              <th scope="col" class="number">${t.balance}</th>
            </tr>
          </thead>
          <tbody>
            <tr class="opening">
              <th scope="row" colspan="5">${t.openingBalance(dateText(this.since || null, lang))}</th>
              <td class="number">${amountText(opening, lang)}</td>
            </tr>
            ${movements.length
              ? movements.map((movement) => this.renderMovement(movement))
              : html`<tr>
                  <td colspan="6" class="soft">${t.movementsNone}</td>
                </tr>`}
          </tbody>
          <tfoot>
            <tr>
              <th scope="row" colspan="5">${t.closingBalance(dateText(this.until || null, lang))}</th>
              <td class="number">${amountText(closing, lang)}</td>
            </tr>
          </tfoot>
        </table>
      </div>
    </div>`;
  }

  private renderMovement(movement: Movement): TemplateResult {
    const { t, lang } = this.words;
    const { voucher, currency, currency_amount } = movement;
    return html`<tr>
      <td class="nowrap">${dateText(movement.entry_date, lang)}</td>
      <th scope="row" class="nowrap">${named(t.itemKinds, movement.kind)} ${movement.invoice_number}</th>
      <td class="nowrap">
        ${voucher === null ? "–" : html`<a href=${hashOf("explain", { q: voucher })}>${voucher}</a>`}
      </td>
      <td class="nowrap">${movement.due_date === null ? "–" : dateText(movement.due_date, lang)}</td>
      <td class="number">
        ${amountText(movement.amount, lang)}
        ${currency_amount === null
          ? nothing
          : html`<br /><span class="soft small">${amountText(currency_amount, lang)} ${currency}</span>`}
      </td>
      <td class="number">${amountText(movement.balance, lang)}</td>
    </tr>`;
  }
}

define("ledger-sync-statement", StatementView);
