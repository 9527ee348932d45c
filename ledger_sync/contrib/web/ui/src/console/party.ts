import { html, nothing, type TemplateResult } from "lit";
import { hashOf } from "./route";

/** Who a row is about, as in open items and ageing. */
export interface OfParty {
  ledger: string;
  party_id: string | number | null;
  party_number: string | null;
  party_name: string | null;
}

/** A party's name and number; the name leads to its statement until that day. */
export function partyLink({ ledger, party_id, party_number, party_name }: OfParty, until: string): TemplateResult {
  const name =
    party_id === null
      ? html`${party_name ?? "–"}`
      : html`<a href=${hashOf("statement", { ledger, until }, String(party_id))}>${party_name ?? party_id}</a>`;
  return html`${name} ${party_number === null ? nothing : html`<span class="soft small nowrap">${party_number}</span>`}`;
}
