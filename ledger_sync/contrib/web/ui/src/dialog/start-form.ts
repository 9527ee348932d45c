import { css, html, nothing, type TemplateResult } from "lit";
import { property, state } from "lit/decorators.js";
import type { StartRequest } from "../core/types";
import { named } from "../i18n";
import { define, Piece } from "../ui/piece";
import { base, controls } from "../ui/theme";

/** Asks what to sync. Fires `start` with a `StartRequest`. */
class StartForm extends Piece {
  @property({ attribute: false }) kinds: readonly string[] = [];
  @property({ type: Boolean }) allowed = false;
  @property({ type: Boolean }) busy = false;

  @state() private mistake: "dates" | "kinds" | null = null;

  static override styles = [
    base,
    controls,
    css`
      form {
        display: grid;
        gap: 1.2rem;
      }

      .lead {
        font-size: 1.1rem;
      }

      .dates {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr));
        gap: 0.8rem;
      }

      #dates {
        margin-block-start: 0.4rem;
      }

      fieldset {
        display: grid;
        gap: 0.3rem;
        margin: 0;
        padding: 0.9rem 1rem;
        border: 1px solid var(--line);
        border-radius: var(--radius);
        background: var(--card);
      }

      legend {
        padding: 0 0.3rem;
        font-weight: 600;
      }

      .dry small {
        display: block;
        color: var(--ink-soft);
        font-size: 0.875rem;
      }

      .primary {
        justify-self: end;
        min-width: 12rem;
      }

      @media (max-width: 30rem) {
        .primary {
          justify-self: stretch;
        }
      }
    `,
  ];

  override render(): TemplateResult {
    const { t } = this.words;
    return html`<form @submit=${this.submit} novalidate>
      <p class="lead">${t.startLead}</p>
      <div>
        <div class="dates">
          <label class="field">${t.since}<input type="date" name="since" aria-describedby="dates" /></label>
          <label class="field">${t.until}<input type="date" name="until" aria-describedby="dates" /></label>
        </div>
        <p id="dates" class="soft small">${t.dateHint}</p>
      </div>
      <fieldset>
        <legend>${t.kinds}</legend>
        ${this.kinds.map(
          (kind) =>
            html`<label class="check">
              <input type="checkbox" name="kinds" value=${kind} checked />${named(t.kindNames, kind)}
            </label>`,
        )}
      </fieldset>
      <label class="check dry">
        <input type="checkbox" name="dryRun" /><span>${t.dryRun}<small>${t.dryRunHint}</small></span>
      </label>
      <div role="alert">${this.mistake ? html`<p class="notice bad">${this.mistakeText}</p>` : nothing}</div>
      ${this.allowed ? nothing : html`<p class="notice warn">${t.mayNotStart}</p>`}
      <button class="primary" ?disabled=${this.busy || !this.allowed}>${this.busy ? t.starting : t.start}</button>
    </form>`;
  }

  private get mistakeText(): string {
    return this.mistake === "dates" ? this.words.t.datesReversed : this.words.t.noKinds;
  }

  private submit(event: SubmitEvent): void {
    event.preventDefault();
    const given = new FormData(event.currentTarget as HTMLFormElement);
    const [since, until] = [String(given.get("since") ?? ""), String(given.get("until") ?? "")];
    const kinds = given.getAll("kinds").map(String);
    // ISO dates sort as text
    this.mistake = since && until && since > until ? "dates" : this.kinds.length && !kinds.length ? "kinds" : null;
    if (this.mistake) return;
    const request: StartRequest = { dryRun: given.get("dryRun") !== null };
    if (since) request.since = since;
    if (until) request.until = until;
    if (kinds.length < this.kinds.length) request.kinds = kinds;
    this.dispatchEvent(new CustomEvent<StartRequest>("start", { detail: request }));
  }
}

define("ledger-sync-start-form", StartForm);
