import { css, html, nothing, type TemplateResult } from "lit";
import { property } from "lit/decorators.js";
import type { Api } from "../core/api";
import type { Link } from "../core/follower";
import { momentText } from "../core/times";
import { atWork, type Payload } from "../core/types";
import { named } from "../i18n";
import { define, Piece } from "../ui/piece";
import { base, controls } from "../ui/theme";
import { toneOf } from "../ui/tones";
import "./count-cards";
import "./error-list";
import "./progress-bar";
import "./skipped-list";
import { total } from "./step-list";

/** One run: how far it is, what it counted, what it skipped and what went wrong. */
class RunView extends Piece {
  @property({ attribute: false }) payload!: Payload;
  @property({ attribute: false }) link: Link = { state: "idle" };
  @property({ attribute: false }) api: Api | null = null;

  static override styles = [
    base,
    controls,
    css`
      :host {
        display: grid;
        gap: 1.3rem;
      }

      .facts {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        gap: 0.4rem 0.7rem;
      }

      .link {
        display: inline-flex;
        align-items: center;
        gap: 0.4rem;
        margin-inline-start: auto;
        font-size: 0.875rem;
        font-weight: 600;
      }

      .link i {
        width: 0.6rem;
        height: 0.6rem;
        border-radius: 50%;
        background: var(--control-line);
      }

      .link.live i {
        background: var(--good);
      }

      .link.polling i {
        background: var(--warn);
      }

      .link.unreachable i,
      .link.expired i,
      .link.refused i {
        background: var(--bad);
      }

      .sides {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr));
        gap: 1.3rem 2rem;
        align-items: start;
      }

      section {
        display: grid;
        gap: 0.6rem;
      }
    `,
  ];

  override render(): TemplateResult {
    const { payload, link, words } = this;
    const { t, lang } = words;
    const working = atWork(payload.state);
    const listening = link.state === "live" || link.state === "polling";
    return html`
      <div class="facts">
        <span class="badge ${toneOf(payload.state)}">${this.stateText()}</span>
        ${payload.dryRun ? html`<span class="badge">${t.dryRunBadge}</span>` : nothing}
        <span class="soft small">${t.syncNumber(payload.syncId)}, ${momentText(payload.startedAt, lang)}</span>
        ${working && link.state !== "idle"
          ? html`<span class="link ${link.state}"><i></i>${named(t.linkNames, link.state)}</span>`
          : nothing}
      </div>
      <ledger-sync-progress .words=${words} .payload=${payload} ?live=${listening}></ledger-sync-progress>
      ${this.renderProof()}
      ${payload.dryRun ? html`<p class="soft small">${t.dryRunNote}</p>` : nothing}
      <ledger-sync-counts role="group" aria-label=${t.counts} .words=${words} .payload=${payload}></ledger-sync-counts>
      ${payload.stats.errors > 0 || payload.errors.length
        ? html`<section>
            <h3>${t.errorsTitle}</h3>
            <ledger-sync-errors
              .words=${words}
              .errors=${payload.errors}
              .count=${payload.stats.errors}
              .syncId=${payload.syncId}
              .api=${this.api}
            ></ledger-sync-errors>
          </section>`
        : nothing}
      <div class="sides">
        <section>
          <h3>${t.steps}</h3>
          <ledger-sync-steps
            .words=${words}
            .steps=${payload.steps}
            ?working=${payload.state === "running" && listening}
          ></ledger-sync-steps>
        </section>
        ${total(payload.snapshot.skipped) > 0
          ? html`<section>
              <h3>${t.skippedTitle}</h3>
              <p class="soft small">${t.skippedLead}</p>
              <ledger-sync-skipped .words=${words} .skipped=${payload.snapshot.skipped}></ledger-sync-skipped>
            </section>`
          : nothing}
      </div>
    `;
  }

  private stateText(): string {
    const { t } = this.words;
    const { state, command } = this.payload;
    if (atWork(state) && command === "pause") return t.pausing;
    if (atWork(state) && command === "cancel") return t.cancelling;
    return named(t.states, state);
  }

  private renderProof(): TemplateResult | typeof nothing {
    const { t } = this.words;
    const { clean } = this.payload;
    if (clean === null) return nothing;
    return clean
      ? html`<div class="notice good"><strong>${t.cleanTitle}</strong><span>${t.clean}</span></div>`
      : html`<div class="notice warn"><strong>${t.notCleanTitle}</strong><span>${t.notClean}</span></div>`;
  }
}

define("ledger-sync-run-view", RunView);
