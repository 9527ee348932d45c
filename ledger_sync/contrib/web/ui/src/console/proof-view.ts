import { css, html, nothing, type TemplateResult } from "lit";
import { countText } from "../core/amounts";
import type { Finding, Proof } from "../core/types";
import { named } from "../i18n";
import { define } from "../ui/piece";
import { capital } from "./account-proof";
import { dateField } from "./fields";
import { View } from "./view";

/** The proof: each control account with what lies between it and its subledger, and the findings. */
class ProofView extends View<Proof> {
  private fetched = "";

  static override styles = [
    ...View.styles,
    css`
      .all {
        display: grid;
        gap: 1.2rem;
      }

      .findings {
        display: grid;
        gap: 0.9rem;
      }

      .findings li {
        display: grid;
        gap: 0.2rem;
        padding-block-start: 0.9rem;
        border-block-start: 1px solid var(--line);
      }

      .name {
        display: flex;
        flex-wrap: wrap;
        gap: 0.2rem 0.6rem;
        align-items: baseline;
        font-weight: 600;
      }

      .findings ul li {
        padding: 0 0 0 1rem;
        border: 0;
        overflow-wrap: anywhere;
      }
    `,
  ];

  protected override fetch(signal: AbortSignal): Promise<Proof> {
    return this.api.proof(this.asOf, signal);
  }

  /** Choosing a cause is no reason to take the proof anew. */
  protected override asksAnew(changed: Map<PropertyKey, unknown>): boolean {
    const before = this.fetched;
    this.fetched = this.asOf;
    return changed.has("api") || changed.has("refresh") || (changed.has("query") && before !== this.asOf);
  }

  private get asOf(): string {
    return this.asked.get("asOf") ?? "";
  }

  protected override renderTop(): TemplateResult {
    const { t } = this.words;
    return html`<div>
        <h2>${t.proofTitle}</h2>
        <p class="soft">${t.proofLead} ${t.waterfallLead}</p>
      </div>
      <div class="filters">
        ${dateField(t.asOf, this.asOf, (asOf) => this.go("proof", { asOf }))}
        <button @click=${this.reload}>${t.reload}</button>
      </div>`;
  }

  protected override renderData(proof: Proof): TemplateResult {
    const { t } = this.words;
    if (!proof.accounts.length) return html`<p class="empty">${t.proofNoAccounts}</p>`;
    const [account, cause] = [this.asked.get("account"), this.asked.get("cause") ?? ""];
    return html`<div class="all">
      ${proof.clean
        ? html`<p class="notice good"><strong>${t.proofIsClean}</strong></p>`
        : html`<p class="notice bad"><strong>${t.proofHasFaults}</strong></p>`}
      ${proof.runs_active.length ? html`<p class="notice warn">${t.proofActive(proof.runs_active.join(", "))}</p>` : nothing}
      ${proof.accounts.map(
        (each) =>
          html`<ledger-sync-account-proof
            .words=${this.words}
            .account=${each}
            .api=${this.api}
            .asOf=${this.asOf}
            .chosen=${each.account_number === account ? cause : ""}
            @choose=${(event: CustomEvent<string>) => this.choose(each.account_number, event.detail)}
          ></ledger-sync-account-proof>`,
      )}
      <section class="panel" aria-labelledby="findings">
        <div>
          <h3 id="findings">${t.findings}</h3>
          <p class="soft small">${proof.as_of === null ? t.findingsLead : t.findingsNotDated}</p>
        </div>
        ${proof.findings.length
          ? html`<ul class="findings">
              ${proof.findings.map((finding) => this.renderFinding(finding))}
            </ul>`
          : proof.as_of === null
            ? html`<p>${t.findingsNone}</p>`
            : nothing}
      </section>
    </div>`;
  }

  private renderFinding(finding: Finding): TemplateResult {
    const { t, lang } = this.words;
    const translated = t.meanings[finding.name];
    const [meaning, nextStep] = translated ?? [finding.meaning, finding.next_step];
    return html`<li>
      <p class="name">
        ${named(t.findingNames, finding.name)}
        <span class="badge">${countText(finding.count, lang)}</span>
        ${finding.fault ? html`<span class="badge bad">${t.faultBadge}</span>` : nothing}
        <span class="soft small">${named(t.ledgers, finding.ledger)}</span>
      </p>
      <p lang=${translated ? nothing : "en"}>${capital(meaning)}.</p>
      <p>${t.remedy} <span lang=${translated ? nothing : "en"}>${nextStep}</span></p>
      <ul class="soft small" lang="en">
        ${finding.examples.map((example) => html`<li>${example.text}</li>`)}
      </ul>
    </li>`;
  }

  private choose(account: string, cause: string): void {
    this.go("proof", { asOf: this.asOf, account: cause && account, cause });
  }
}

define("ledger-sync-proof", ProofView);
