import { html, type TemplateResult } from "lit";
import { named } from "../i18n";
import type { Words } from "../ui/words";

const LEDGERS: Record<string, string> = {
  vendor_invoices: "supplier",
  customer_invoices: "customer",
  expenses: "employee",
};

/** The ledgers that somebody may look at, told from the kinds that can be synced. */
export function ledgersOf(kinds: readonly string[]): string[] {
  const ledgers = kinds.map((kind) => LEDGERS[kind]).filter((ledger) => ledger !== undefined);
  return ledgers.length ? ledgers : Object.values(LEDGERS);
}

export function ledgerField(
  { t }: Words,
  ledgers: readonly string[],
  chosen: string,
  onChange: (ledger: string) => void,
): TemplateResult {
  return html`<label class="field"
    >${t.ledger}
    <select @change=${(event: Event) => onChange((event.target as HTMLSelectElement).value)}>
      ${ledgers.map(
        (ledger) => html`<option value=${ledger} ?selected=${ledger === chosen}>${named(t.ledgers, ledger)}</option>`,
      )}
    </select>
  </label>`;
}

export function dateField(name: string, chosen: string, onChange: (date: string) => void): TemplateResult {
  return html`<label class="field"
    >${name}
    <input type="date" .value=${chosen} @change=${(event: Event) => onChange((event.target as HTMLInputElement).value)} />
  </label>`;
}
