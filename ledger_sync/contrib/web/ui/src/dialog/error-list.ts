import { css, html, nothing, type PropertyValues, type TemplateResult } from "lit";
import { property, state } from "lit/decorators.js";
import type { Api } from "../core/api";
import { clockText } from "../core/times";
import type { ErrorLine } from "../core/types";
import { named } from "../i18n";
import { define, Piece } from "../ui/piece";
import { base, controls } from "../ui/theme";

/** How many are shown unasked: the rest of the run shall not be pushed out of sight. */
const FEW = 3;
const ALL_MAX = 100;

/** What could not be written, and why. It shows the newest errors, and fetches the others when asked to. */
class ErrorList extends Piece {
  @property({ attribute: false }) errors: readonly ErrorLine[] = [];
  @property({ type: Number }) count = 0;
  @property() syncId = "";
  @property({ attribute: false }) api: Api | null = null;

  @state() private all: { errors: readonly ErrorLine[]; total: number } | null = null;
  @state() private fetching = false;
  @state() private problem: unknown = null;

  static override styles = [
    base,
    controls,
    css`
      :host {
        display: grid;
        gap: 0.6rem;
      }

      ol {
        display: grid;
        gap: 0.5rem;
      }

      li {
        padding: 0.6rem 0.9rem;
        border: 1px solid color-mix(in srgb, var(--bad) 40%, var(--line));
        border-radius: 10px;
        background: var(--card-solid);
      }

      .what {
        display: flex;
        flex-wrap: wrap;
        gap: 0 0.8rem;
      }

      time {
        margin-inline-start: auto;
      }

      .message {
        overflow-wrap: anywhere;
      }

      button {
        justify-self: start;
      }
    `,
  ];

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has("syncId")) this.all = this.problem = null;
  }

  override render(): TemplateResult {
    const { t } = this.words;
    const shown = this.all?.errors ?? this.errors.slice(0, FEW);
    const of = Math.max(this.count, this.all?.total ?? 0, this.errors.length);
    return html`
      ${shown.length ? nothing : html`<p class="soft">${t.errorsElsewhere}</p>`}
      ${shown.length && of > shown.length ? html`<p class="soft small">${t.errorsNewest(shown.length, of)}</p>` : nothing}
      <ol>
        ${shown.map((error) => this.renderError(error))}
      </ol>
      <ledger-sync-problem .words=${this.words} .problem=${this.problem}></ledger-sync-problem>
      ${this.api && !this.all && of > shown.length
        ? html`<button ?disabled=${this.fetching} @click=${this.fetchAll}>${t.errorsAll}</button>`
        : nothing}
    `;
  }

  private renderError(error: ErrorLine): TemplateResult {
    const { t, lang } = this.words;
    const about: string[] = [];
    if (error.voucher !== null) about.push(t.voucher(error.voucher));
    else if (error.entryId !== null) about.push(t.entry(String(error.entryId)));
    if (error.documentKind !== null) {
      about.push(t.documentOf(named(t.documents, error.documentKind), String(error.documentId ?? "")));
    }
    return html`<li>
      <div class="what">
        <strong>${about.join(" · ")}</strong>
        <time class="soft small number" datetime=${error.at}>${t.atTime(clockText(error.at, lang))}</time>
      </div>
      <p class="message small" lang="en">${error.message}</p>
    </li>`;
  }

  private async fetchAll(): Promise<void> {
    const { api, syncId } = this;
    if (!api) return;
    this.fetching = true;
    this.problem = null;
    try {
      const all = await api.errors(syncId, ALL_MAX);
      if (syncId === this.syncId) this.all = all;
    } catch (problem) {
      this.problem = problem;
    } finally {
      this.fetching = false;
    }
  }
}

define("ledger-sync-errors", ErrorList);
