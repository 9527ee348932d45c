import { css, html, nothing, type PropertyValues, type TemplateResult } from "lit";
import { property, state } from "lit/decorators.js";
import type { Api } from "../core/api";
import { Problem } from "../core/problem";
import { Piece } from "../ui/piece";
import { base, controls } from "../ui/theme";
import "../ui/problem-note";
import { hashOf, type Page, type Params } from "./route";

/** A page of the console: asks for its data whenever what it is asked for changes, and shows how that went. */
export abstract class View<T> extends Piece {
  @property({ attribute: false }) api!: Api;
  @property() query = "";
  /** Rises when the data may have changed. */
  @property({ type: Number }) refresh = 0;

  @state() protected data: T | null = null;
  @state() protected loading = false;
  @state() private problem: unknown = null;

  private asking: AbortController | null = null;

  static override styles = [
    base,
    controls,
    css`
      :host {
        display: grid;
        gap: 1.2rem;
        animation: appear 300ms ease;
      }

      @keyframes appear {
        from {
          opacity: 0;
        }
      }

      h2 {
        margin: 0;
        font-size: 1.5rem;
        line-height: 1.25;
      }

      .top {
        display: flex;
        flex-wrap: wrap;
        gap: 0.8rem 1.2rem;
        align-items: end;
      }

      .top > :first-child {
        flex: 1 1 12rem;
      }

      .filters {
        display: flex;
        flex-wrap: wrap;
        gap: 0.8rem;
        align-items: end;
      }

      .filters .field {
        width: 11rem;
      }

      .filters .check {
        min-height: 2.5rem;
      }

      .panel {
        display: grid;
        gap: 0.9rem;
        min-width: 0;
        padding: 1.2rem;
        border: 1px solid var(--line);
        border-radius: var(--radius);
        background: var(--panel);
      }

      .empty {
        padding: 2.5rem 1rem;
        border: 1px dashed var(--control-line);
        border-radius: var(--radius);
        color: var(--ink-soft);
        text-align: center;
      }

      .stale {
        opacity: 0.55;
        transition: opacity var(--quick) 200ms;
      }

      @media (max-width: 30rem) {
        .filters {
          flex: 1;
        }

        .filters .field {
          flex: 1 1 9rem;
        }

        .panel {
          padding: 0.9rem;
        }
      }
    `,
  ];

  /** Ask for the data; null when there is nothing to ask for. */
  protected abstract fetch(signal: AbortSignal): Promise<T> | null;

  /** The heading and what chooses the data. */
  protected abstract renderTop(): TemplateResult;

  protected abstract renderData(data: T): TemplateResult;

  /** What stands there before anything was asked for. */
  protected renderIdle(): TemplateResult | typeof nothing {
    return nothing;
  }

  /** Whether a change means that other data is wanted. */
  protected asksAnew(changed: PropertyValues): boolean {
    return ["api", "query", "refresh"].some((name) => changed.has(name));
  }

  protected override willUpdate(changed: PropertyValues): void {
    if (!this.asksAnew(changed)) return;
    if (changed.has("api")) this.data = null;
    void this.reload();
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.asking?.abort();
  }

  override render(): TemplateResult {
    const { t } = this.words;
    return html`
      <div class="top">${this.renderTop()}</div>
      <div role="status" class=${this.loading ? "" : "unseen"}>
        ${this.loading ? html`<span class="soft">${t.loading}</span>` : nothing}
      </div>
      ${this.problem
        ? html`<ledger-sync-problem .words=${this.words} .problem=${this.problem}></ledger-sync-problem>
            <div><button @click=${this.reload}>${t.reload}</button></div>`
        : this.data !== null
          ? html`<div class=${this.loading ? "stale" : ""}>${this.renderData(this.data)}</div>`
          : this.loading
            ? nothing
            : this.renderIdle()}
    `;
  }

  protected get asked(): URLSearchParams {
    return new URLSearchParams(this.query);
  }

  /** Go to a page of the console. */
  protected go(page: Page, params: Params, id?: string): void {
    location.hash = hashOf(page, params, id);
  }

  protected readonly reload = async (): Promise<void> => {
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    const answer = this.fetch(asking.signal);
    this.problem = null;
    this.loading = answer !== null;
    if (answer === null) {
      this.data = null;
      return;
    }
    try {
      const data = await answer;
      if (this.asking === asking) this.data = data;
    } catch (problem) {
      if (this.asking !== asking || asking.signal.aborted) return;
      this.problem = problem;
      if (problem instanceof Problem && problem.unauthorized) {
        this.dispatchEvent(
          new CustomEvent("ledger-sync-unauthorized", { detail: problem, bubbles: true, composed: true }),
        );
      }
    } finally {
      if (this.asking === asking) this.loading = false;
    }
  };
}
