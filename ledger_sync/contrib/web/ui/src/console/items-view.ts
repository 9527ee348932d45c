import { css, html, nothing, type PropertyValues, type TemplateResult } from "lit";
import { property, state } from "lit/decorators.js";
import { amountText } from "../core/amounts";
import { dateText } from "../core/times";
import type { OpenItem } from "../core/types";
import { named } from "../i18n";
import { define } from "../ui/piece";
import { dateField, ledgerField } from "./fields";
import { partyLink } from "./party";
import { hashOf } from "./route";
import { View } from "./view";

const STEP = 100;
/** The server answers with no more. */
const ITEMS_MAX = 1_000;
const TONES: Record<string, string> = { paid: "good", partially_paid: "warn" };

/** The open items of a ledger. */
class ItemsView extends View<{ items: OpenItem[]; more: boolean }> {
  @property({ attribute: false }) ledgers: readonly string[] = [];

  @state() private limit = STEP;

  static override styles = [
    ...View.styles,
    css`
      .all {
        display: grid;
        gap: 0.8rem;
      }
    `,
  ];

  private get ledger(): string {
    return this.asked.get("ledger") ?? this.ledgers[0] ?? "supplier";
  }

  private get asOf(): string {
    return this.asked.get("asOf") ?? "";
  }

  private get settled(): boolean {
    return this.asked.has("settled");
  }

  protected override asksAnew(changed: PropertyValues): boolean {
    if (changed.has("query") || changed.has("api")) this.limit = STEP;
    return changed.has("limit") || super.asksAnew(changed);
  }

  protected override fetch(signal: AbortSignal): Promise<{ items: OpenItem[]; more: boolean }> {
    const { ledger, asOf, settled, limit } = this;
    return this.api.openItems({ ledger, asOf, includeSettled: settled, limit }, signal);
  }

  protected override renderTop(): TemplateResult {
    const { t } = this.words;
    const chosen = { ledger: this.ledger, asOf: this.asOf, settled: this.settled };
    return html`<h2>${t.itemsTitle}</h2>
      <div class="filters">
        ${ledgerField(this.words, this.ledgers, this.ledger, (ledger) => this.go("items", { ...chosen, ledger }))}
        ${dateField(t.asOf, this.asOf, (asOf) => this.go("items", { ...chosen, asOf }))}
        <label class="check">
          <input
            type="checkbox"
            .checked=${this.settled}
            @change=${(event: Event) =>
              this.go("items", { ...chosen, settled: (event.target as HTMLInputElement).checked })}
          />${t.includeSettled}
        </label>
      </div>`;
  }

  protected override renderData({ items, more }: { items: OpenItem[]; more: boolean }): TemplateResult {
    const { t } = this.words;
    if (!items.length) return html`<p class="empty">${t.itemsEmpty}</p>`;
    return html`<div class="all">
      <div class="scroller" role="region" aria-label=${t.scrollable(t.itemsTitle)} tabindex="0">
        <table>
          <caption class="unseen">
            ${t.itemsTitle}
          </caption>
          <thead>
            <tr>
              <th scope="col">${t.itemColumns.document}</th>
              <th scope="col">${t.itemColumns.party}</th>
              <th scope="col">${t.itemColumns.voucher}</th>
              <th scope="col">${t.itemColumns.date}</th>
              <th scope="col">${t.itemColumns.due}</th>
              <th scope="col" class="number">${t.itemColumns.amount}</th>
              <th scope="col" class="number">${t.itemColumns.remaining}</th>
              <th scope="col">${t.itemColumns.state}</th>
            </tr>
          </thead>
          <tbody>
            ${items.map((item) => this.renderItem(item))}
          </tbody>
        </table>
      </div>
      <p class="soft small" role="status">${t.itemsShown(items.length, more)}</p>
      ${more ? this.renderMore(items.length) : nothing}
    </div>`;
  }

  private renderMore(shown: number): TemplateResult {
    const { t } = this.words;
    if (shown >= ITEMS_MAX) return html`<p class="notice">${t.itemsMost}</p>`;
    return html`<div><button ?disabled=${this.loading} @click=${this.showMore}>${t.more}</button></div>`;
  }

  private renderItem(item: OpenItem): TemplateResult {
    const { t, lang } = this.words;
    return html`<tr>
      <th scope="row" class="nowrap">
        ${named(t.itemKinds, item.kind)} ${item.invoice_number ?? `${item.source_type} ${item.source_id}`}
      </th>
      <td class="name">${partyLink(item, this.asOf)}</td>
      <td class="nowrap">
        ${item.voucher === null ? "–" : html`<a href=${hashOf("explain", { q: item.voucher })}>${item.voucher}</a>`}
      </td>
      <td class="nowrap">${dateText(item.invoice_date ?? item.entry_date, lang)}</td>
      <td class="nowrap">${item.due_date === null ? "–" : dateText(item.due_date, lang)}</td>
      <td class="number">${amountText(item.amount, lang)}</td>
      <td class="number">${amountText(item.remaining_amount, lang)}</td>
      <td><span class="badge ${TONES[item.status] ?? ""}">${named(t.itemStates, item.status)}</span></td>
    </tr>`;
  }

  private showMore(): void {
    this.limit += STEP;
  }
}

define("ledger-sync-items", ItemsView);
