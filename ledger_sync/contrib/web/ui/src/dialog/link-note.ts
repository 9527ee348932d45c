import { css, html, nothing, type TemplateResult } from "lit";
import { property, state } from "lit/decorators.js";
import type { Link } from "../core/follower";
import { define, Piece } from "../ui/piece";
import { kindOf } from "../ui/problem-note";
import { base, controls } from "../ui/theme";

/** Says that the live connection is gone or that nobody answers, and when the next try is. Fires `retry`. */
class LinkNote extends Piece {
  @property({ attribute: false }) link: Link = { state: "idle" };
  /** Whether figures are on the page that may be old. */
  @property({ type: Boolean }) showing = false;

  @state() private now = Date.now();
  private clock: ReturnType<typeof setInterval> | undefined;

  static override styles = [
    base,
    controls,
    css`
      :host {
        display: block;
      }

      .notice {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        gap: 0.5rem 0.8rem;
      }

      .notice > :first-child {
        flex: 1 1 14rem;
      }
    `,
  ];

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    clearInterval(this.clock);
  }

  protected override willUpdate(): void {
    clearInterval(this.clock);
    if (this.link.state === "unreachable") {
      this.now = Date.now();
      this.clock = setInterval(() => (this.now = Date.now()), 1_000);
    }
  }

  override render(): TemplateResult | typeof nothing {
    const { link } = this;
    const { t } = this.words;
    switch (link.state) {
      case "polling":
        return html`<div class="notice warn" role="status"><span>${t.pollingText}</span></div>`;
      case "unreachable": {
        const seconds = Math.max(0, Math.ceil((link.retryAt - this.now) / 1_000));
        return html`<div class="notice bad">
          <div>
            <strong role="alert">${link.problem ? kindOf(link.problem, this.words) : t.unreachable}</strong>
            <p>${t.nextTry(seconds)} ${this.showing ? t.unreachableRun : nothing}</p>
          </div>
          <button @click=${this.retry}>${t.tryNow}</button>
        </div>`;
      }
      case "expired":
        return html`<div class="notice bad" role="alert">
          <div>
            <strong>${t.expiredTitle}</strong>
            <p>${t.expiredText} ${link.problem?.detail ? html`<span lang="en">${link.problem.detail}</span>` : nothing}</p>
          </div>
        </div>`;
      case "refused":
        return html`<ledger-sync-problem .words=${this.words} .problem=${link.problem}></ledger-sync-problem>`;
      default:
        return nothing;
    }
  }

  private retry(): void {
    this.dispatchEvent(new Event("retry"));
  }
}

define("ledger-sync-link", LinkNote);
