import { css, html, nothing, type TemplateResult } from "lit";
import { property } from "lit/decorators.js";
import { amountText, isZero, sizeOf, sumAmounts } from "../core/amounts";
import { dateText } from "../core/times";
import type { Ageing, AgeingRow } from "../core/types";
import { cssom } from "../ui/cssom";
import { define } from "../ui/piece";
import { dateField, ledgerField } from "./fields";
import { partyLink } from "./party";
import { View } from "./view";

/** Who owes, or is owed, how much, and for how long. */
class AgeingView extends View<Ageing> {
  @property({ attribute: false }) ledgers: readonly string[] = [];

  static override styles = [
    ...View.styles,
    css`
      .all {
        display: grid;
        gap: 1.2rem;
      }

      .bars {
        display: grid;
        grid-template-columns: max-content 1fr max-content;
        gap: 0.5rem 1rem;
        align-items: center;
      }

      .bars li {
        display: grid;
        grid-template-columns: subgrid;
        grid-column: 1 / -1;
        align-items: center;
      }

      .bar {
        height: 1.3rem;
        border-radius: 6px;
        background: color-mix(in srgb, var(--line) 55%, transparent);
      }

      .bar i {
        display: block;
        width: var(--size);
        height: 100%;
        border-radius: 6px;
        background: color-mix(in srgb, var(--bad) var(--age), var(--accent));
        transition: width var(--calm) ease-out;
      }

      .amount {
        font-weight: 600;
        font-variant-numeric: tabular-nums;
        text-align: end;
      }

      @media (max-width: 34rem) {
        .bars {
          grid-template-columns: 1fr max-content;
        }

        .bars .bar {
          grid-row: 2;
          grid-column: 1 / -1;
          height: 0.8rem;
        }
      }
    `,
  ];

  private get ledger(): string {
    return this.asked.get("ledger") ?? this.ledgers[0] ?? "supplier";
  }

  private get asOf(): string {
    return this.asked.get("asOf") ?? "";
  }

  protected override fetch(signal: AbortSignal): Promise<Ageing> {
    return this.api.ageing({ ledger: this.ledger, asOf: this.asOf }, signal);
  }

  protected override renderTop(): TemplateResult {
    const { t } = this.words;
    return html`<h2>${t.ageingTitle}</h2>
      <div class="filters">
        ${ledgerField(this.words, this.ledgers, this.ledger, (ledger) => this.go("ageing", { ledger, asOf: this.asOf }))}
        ${dateField(t.asOf, this.asOf, (asOf) => this.go("ageing", { ledger: this.ledger, asOf }))}
        <button @click=${this.reload}>${t.reload}</button>
      </div>`;
  }

  protected override renderData({ as_of, buckets, rows }: Ageing): TemplateResult {
    const { t, lang } = this.words;
    if (!rows.length) return html`<p class="empty">${t.ageingEmpty}</p>`;
    const overdue = buckets.map((_, index) => sumAmounts(rows.map((row) => row.overdue[index] ?? "0")));
    const notDue = sumAmounts(rows.map((row) => row.not_due));
    const withoutDueDate = sumAmounts(rows.map((row) => row.without_due_date));
    const ages: [name: string, amount: string][] = [
      [t.notDue, notDue],
      ...buckets.map((days, index): [string, string] => [t.bucket(days), overdue[index]!]),
    ];
    const most = Math.max(...ages.map(([, amount]) => sizeOf(amount)), 1);
    return html`<div class="all">
      <section class="panel" aria-labelledby="bars">
        <h3 id="bars">${t.ageingBars}, ${dateText(as_of, lang)}</h3>
        <ul class="bars">
          ${ages.map(
            ([name, amount], index) =>
              html`<li>
                <span>${name}</span>
                <span class="bar" aria-hidden="true"
                  ><i
                    ${cssom({
                      "--size": `${(100 * Math.max(0, sizeOf(amount))) / most}%`,
                      "--age": `${(100 * index) / buckets.length}%`,
                    })}
                  ></i
                ></span>
                <span class="amount">${amountText(amount, lang)}</span>
              </li>`,
          )}
        </ul>
      </section>
      <div class="scroller" role="region" aria-label=${t.scrollable(t.ageingTitle)} tabindex="0">
        <table>
          <caption class="unseen">
            ${t.ageingTitle}
          </caption>
          <thead>
            <tr>
              <th scope="col">${t.party}</th>
              <th scope="col" class="number">${t.notDue}</th>
              ${buckets.map((days) => html`<th scope="col" class="number">${t.bucket(days)}</th>`)}
              <th scope="col" class="number">${t.credits}</th>
              <th scope="col" class="number">${t.total}</th>
            </tr>
          </thead>
          <tbody>
            ${rows.map((row) => this.renderRow(row))}
          </tbody>
          <tfoot>
            <tr>
              <th scope="row">${t.sum}</th>
              ${[notDue, ...overdue, sumAmounts(rows.map((row) => row.credits)), sumAmounts(rows.map((row) => row.total))].map(
                (amount) => this.renderAmount(amount),
              )}
            </tr>
          </tfoot>
        </table>
      </div>
      ${isZero(withoutDueDate) ? nothing : html`<p class="soft small">${t.withoutDueDate(amountText(withoutDueDate, lang))}</p>`}
    </div>`;
  }

  private renderRow(row: AgeingRow): TemplateResult {
    const amounts = [row.not_due, ...row.overdue, row.credits, row.total];
    return html`<tr>
      <th scope="row" class="name">${partyLink(row, this.asOf)}</th>
      ${amounts.map((amount) => this.renderAmount(amount))}
    </tr>`;
  }

  private renderAmount(amount: string): TemplateResult {
    return html`<td class="number ${isZero(amount) ? "soft" : ""}">
      ${isZero(amount) ? "–" : amountText(amount, this.words.lang)}
    </td>`;
  }
}

define("ledger-sync-ageing", AgeingView);
