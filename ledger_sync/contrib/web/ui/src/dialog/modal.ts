import { css, html, nothing, type PropertyValues, type TemplateResult } from "lit";
import { property, query, state } from "lit/decorators.js";
import { Announcer } from "../core/announcer";
import { Api, type Access } from "../core/api";
import { baseOf, trimmedBase } from "../core/base";
import { socketChannel } from "../core/channel";
import { RunFollower, type Link } from "../core/follower";
import { Problem } from "../core/problem";
import { untilReached } from "../core/retry";
import { atWork, type Command, type Payload, type Session, type StartRequest } from "../core/types";
import { Whole } from "../ui/piece";
import { base, controls, theme } from "../ui/theme";
import "../ui/problem-note";
import "./link-note";
import { messageOf } from "./message";
import "./run-view";
import "./start-form";

const IDLE: Link = { state: "idle" };

/**
 * The dialog: starts a sync, or follows the one at work.
 *
 * Attributes: `open`, `token`, `tenant`, `base`, `sync-id`, `lang`, `theme` (`light`, `dark`; otherwise the system's).
 *
 * Events: `ledger-sync-close` and `close`; `sync-complete` and `sync-error` with the payload as detail, once per run,
 * even when the dialog is closed meanwhile; `ledger-sync-expired` when a new token is needed.
 */
export class LedgerSyncModal extends Whole {
  @property({ type: Boolean, reflect: true }) open = false;
  @property() token = "";
  @property() tenant = "";
  @property() base = baseOf(import.meta.url);
  @property({ attribute: "sync-id" }) syncId = "";

  @state() private session: Session | null = null;
  @state() private payload: Payload | null = null;
  @state() private link: Link = IDLE;
  @state() private problem: unknown = null;
  @state() private notice: "alreadyRunning" | "begunElsewhere" | null = null;
  @state() private starting = false;
  @state() private confirming = false;
  @state() private commanding = false;
  @state() private announced = "";

  @query("dialog") private dialog!: HTMLDialogElement;
  @query("h2") private heading!: HTMLElement;

  private api: Api | null = null;
  private follower: RunFollower | null = null;
  private beginning: AbortController | null = null;
  private announcer = new Announcer();
  /** The runs whose end is to be told: seen at work, or started here. */
  private readonly awaited = new Set<string>();

  static override styles = [
    theme,
    base,
    controls,
    css`
      :host {
        display: contents;
      }

      dialog {
        width: min(48rem, 100vw - 1.5rem);
        max-width: none;
        max-height: min(54rem, 100dvh - 1.5rem);
        padding: 0;
        overflow: hidden;
        flex-direction: column;
        border: 1px solid color-mix(in srgb, var(--line) 70%, transparent);
        border-radius: 20px;
        background:
          radial-gradient(90% 60% at 100% 100%, color-mix(in srgb, #6650c8 14%, transparent), transparent),
          radial-gradient(90% 60% at 0% 60%, color-mix(in srgb, #0c8079 12%, transparent), transparent),
          var(--panel);
        color: var(--ink);
        box-shadow: var(--shadow);
        backdrop-filter: blur(22px) saturate(1.4);
        opacity: 0;
        transform: translateY(14px) scale(0.985);
        transition:
          opacity 240ms ease,
          transform 240ms ease,
          overlay 240ms allow-discrete,
          display 240ms allow-discrete;
      }

      dialog[open] {
        display: flex;
        opacity: 1;
        transform: none;
      }

      dialog::backdrop {
        background: rgb(10 18 38 / 0%);
        backdrop-filter: blur(0);
        transition:
          background 240ms ease,
          backdrop-filter 240ms ease,
          overlay 240ms allow-discrete,
          display 240ms allow-discrete;
      }

      dialog[open]::backdrop {
        background: rgb(10 18 38 / 52%);
        backdrop-filter: blur(5px);
      }

      @starting-style {
        dialog[open] {
          opacity: 0;
          transform: translateY(14px) scale(0.985);
        }

        dialog[open]::backdrop {
          background: rgb(10 18 38 / 0%);
          backdrop-filter: blur(0);
        }
      }

      .frame {
        display: contents;
      }

      .top {
        display: flex;
        gap: 1rem;
        align-items: center;
        padding: 1rem 1.3rem;
        background: var(--gradient);
        color: #fff;
      }

      h2 {
        margin: 0;
        font-size: 1.3rem;
        line-height: 1.25;
      }

      /* it has the focus only to be read out */
      h2:focus-visible {
        outline: none;
      }

      .top div {
        flex: 1;
        min-width: 0;
      }

      .top p {
        overflow-wrap: anywhere;
        font-size: 0.9375rem;
      }

      .shut {
        display: grid;
        place-items: center;
        width: 2.5rem;
        min-height: 2.5rem;
        padding: 0;
        border: 1px solid rgb(255 255 255 / 55%);
        border-radius: 50%;
        background: rgb(0 0 0 / 16%);
        color: #fff;
      }

      .shut:hover:not(:disabled) {
        border-color: #fff;
        background: rgb(0 0 0 / 36%);
      }

      .shut:focus-visible {
        outline-color: #fff;
      }

      .shut svg {
        width: 1.1rem;
      }

      .body {
        display: grid;
        gap: 1rem;
        align-content: start;
        padding: 1.3rem;
        overflow: hidden auto;
        overscroll-behavior: contain;
      }

      .body:focus-visible {
        outline-offset: -3px;
      }

      /* that the line is gone is seen wherever one has scrolled to */
      .body > ledger-sync-link {
        position: sticky;
        inset-block-start: 0;
        z-index: 1;
      }

      .body > :not(.unseen) {
        animation: appear 300ms ease;
      }

      @keyframes appear {
        from {
          opacity: 0;
        }
      }

      .opening {
        padding: 2rem 0;
        text-align: center;
      }

      footer {
        display: flex;
        flex-wrap: wrap;
        gap: 0.6rem;
        align-items: center;
        justify-content: flex-end;
        padding: 0.8rem 1.3rem;
        border-block-start: 1px solid var(--line);
        background: var(--card);
      }

      footer p {
        flex: 1 1 14rem;
      }

      @media (max-width: 30rem) {
        .body {
          padding: 1rem;
        }

        .top,
        footer {
          padding-inline: 1rem;
        }

        footer button {
          flex: 1 1 auto;
          padding-inline: 0.6rem;
        }
      }
    `,
  ];

  /** Open the dialog. */
  show(): void {
    this.open = true;
  }

  /** Close the dialog. A sync goes on. */
  close(): void {
    if (!this.open) return;
    this.open = false;
    this.confirming = false;
    this.dispatchEvent(new Event("close"));
    this.dispatchEvent(new Event("ledger-sync-close", { bubbles: true, composed: true }));
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.leave();
    this.awaited.clear();
  }

  override connectedCallback(): void {
    super.connectedCallback();
    // moved within the page: a dialog loses its place on top, and the follower was let go
    if (this.hasUpdated && this.open) {
      this.dialog.close();
      this.dialog.showModal();
      void this.begin();
    }
  }

  protected override updated(changed: PropertyValues): void {
    const otherBooks = ["tenant", "base", "syncId"].some((name) => changed.has(name));
    if (changed.has("open")) this.openChanged(changed.get("open") === true);
    else if (otherBooks || changed.has("token")) this.accessChanged(otherBooks);
    // what had the focus may be gone from the page
    if (this.open && !this.shadowRoot?.activeElement) this.heading.focus({ preventScroll: true });
  }

  override render(): TemplateResult {
    const { t, lang } = this.words;
    return html`<dialog aria-labelledby="title" @cancel=${this.escaped} @close=${this.close}>
      <div class="frame" lang=${lang}>
        <div class="top">
          <div>
            <h2 id="title" tabindex="-1" autofocus>${t.title}</h2>
            ${this.whose ? html`<p>${t.tenantOf(this.whose)}</p>` : nothing}
          </div>
          <button class="shut" aria-label=${t.close} @click=${this.close}>
            <svg viewBox="0 0 16 16" aria-hidden="true">
              <path d="M3 3l10 10M13 3L3 13" fill="none" stroke="currentColor" stroke-width="2.2" stroke-linecap="round" />
            </svg>
          </button>
        </div>
        <div class="body" role="group" aria-label=${t.title} tabindex="0">
          <p class="unseen" role="status">${this.announced}</p>
          ${this.notice ? html`<p class="notice" role="status">${t[this.notice]}</p>` : nothing}
          ${this.renderLink()}
          <ledger-sync-problem .words=${this.words} .problem=${this.problem} ?hidden=${!this.problem}></ledger-sync-problem>
          ${this.renderBody()}
        </div>
        ${this.renderFooter()}
      </div>
    </dialog>`;
  }

  private renderLink(): TemplateResult | typeof nothing {
    const { link, payload } = this;
    if (payload && !atWork(payload.state)) return nothing;
    // before there is a run to follow, that the live connection is missing is of no interest
    const silent = ["idle", "connecting", "live", ...(payload ? [] : ["polling"])];
    if (silent.includes(link.state)) return nothing;
    return html`<ledger-sync-link
      .words=${this.words}
      .link=${link}
      ?showing=${payload !== null}
      @retry=${this.retry}
    ></ledger-sync-link>`;
  }

  private renderBody(): TemplateResult | typeof nothing {
    const { t } = this.words;
    if (!this.token) return html`<p class="notice warn">${t.noToken}</p>`;
    if (this.payload) {
      return html`<ledger-sync-run-view
        .words=${this.words}
        .payload=${this.payload}
        .link=${this.link}
        .api=${this.api}
      ></ledger-sync-run-view>`;
    }
    if (this.link.state === "expired" || this.link.state === "refused") return nothing;
    if (!this.session) return this.problem ? nothing : html`<p class="opening soft">${t.opening}</p>`;
    return html`<ledger-sync-start-form
      .words=${this.words}
      .kinds=${this.session.kinds}
      ?allowed=${this.maySync}
      ?busy=${this.starting}
      @start=${this.start}
    ></ledger-sync-start-form>`;
  }

  private renderFooter(): TemplateResult | typeof nothing {
    const { payload, commanding } = this;
    const { t } = this.words;
    if (!payload) return nothing;
    const working = atWork(payload.state);
    if (this.confirming && working) {
      return html`<footer role="group" aria-labelledby="sure">
        <p id="sure"><strong>${t.cancelTitle}</strong> <span class="soft small">${t.cancelText}</span></p>
        <button id="go-on" @click=${this.goOn}>${t.cancelNo}</button>
        <button class="danger" ?disabled=${commanding} @click=${() => this.command("cancel")}>${t.cancelYes}</button>
      </footer>`;
    }
    const asked = commanding || payload.command !== null;
    const resumable = payload.state === "paused" || payload.state === "failed";
    return html`<footer>
      <p class="soft small">${working ? t.closeKeepsRunning : nothing}</p>
      ${this.maySync && payload.state === "running"
        ? html`<button ?disabled=${asked} @click=${() => this.command("pause")}>${t.pause}</button>`
        : nothing}
      ${this.maySync && resumable
        ? html`<button class="primary" ?disabled=${asked} @click=${() => this.command("resume")}>${t.resume}</button>`
        : nothing}
      ${this.maySync && working
        ? html`<button
            id="cancel"
            class="danger"
            ?disabled=${commanding || payload.command === "cancel"}
            @click=${this.askWhetherToCancel}
          >
            ${t.cancel}
          </button>`
        : nothing}
      ${working
        ? nothing
        : html`${this.maySync && !this.syncId ? html`<button @click=${this.startAnother}>${t.startAnother}</button>` : nothing}
            <button class=${resumable && this.maySync ? "" : "primary"} @click=${this.close}>${t.close}</button>`}
    </footer>`;
  }

  private get whose(): string {
    return this.payload?.tenant ?? (this.tenant || (this.session?.tenants.length === 1 ? this.session.tenants[0]! : ""));
  }

  private get maySync(): boolean {
    return this.session?.rights.includes("sync") ?? false;
  }

  // -- opening and closing

  private openChanged(was: boolean): void {
    if (this.open) {
      if (!this.dialog.open) this.dialog.showModal();
      if (!this.follower) void this.begin();
    } else if (was) {
      if (this.dialog.open) this.dialog.close();
      // a run at work is followed on, so that the page hears of its end
      if (!this.payload || !atWork(this.payload.state)) this.hangUp();
    }
  }

  private accessChanged(otherBooks: boolean): void {
    const following = this.payload !== null && atWork(this.payload.state);
    if (!this.open && !following) return;
    // a fresh token for the same books: the figures stay while the line is built anew
    void this.begin(otherBooks ? null : this.payload);
  }

  private escaped(event: Event): void {
    if (!this.confirming) return;
    event.preventDefault();
    this.goOn();
  }

  // -- following

  private async begin(shown: Payload | null = null): Promise<void> {
    this.leave();
    this.payload = shown;
    if (!this.token) return;
    const access: Access = { base: trimmedBase(this.base), token: this.token, tenant: this.tenant || null };
    const api = new Api(access);
    this.api = api;
    const beginning = new AbortController();
    this.beginning = beginning;
    this.link = { state: "connecting" };
    const wanted = shown?.syncId ?? this.syncId;
    try {
      const [session, running] = await untilReached(
        (signal) => Promise.all([api.session(signal), wanted ? api.run(wanted, signal) : api.runAtWork(signal)]),
        beginning.signal,
        (retryAt, problem) => (this.link = { state: "unreachable", retryAt, problem }),
      );
      if (beginning.signal.aborted) return;
      this.session = session;
      this.link = IDLE;
      const follower = new RunFollower({
        source: api,
        openChannel: socketChannel(access),
        onPayload: (payload) => this.told(payload),
        onLink: (link) => this.linkChanged(link),
      });
      this.follower = follower;
      follower.follow(running?.syncId ?? null);
      if (running) follower.take(running);
    } catch (error) {
      if (beginning.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      this.linkChanged({ state: error.unauthorized ? "expired" : "refused", problem: error });
    }
  }

  /** Stop listening; what is shown stays while the dialog fades. */
  private hangUp(): void {
    this.beginning?.abort();
    this.follower?.stop();
    this.beginning = this.follower = null;
  }

  /** Let go of the run and forget it. */
  private leave(): void {
    this.hangUp();
    this.api = null;
    this.payload = this.session = this.problem = this.notice = null;
    this.starting = this.confirming = this.commanding = false;
    this.announced = "";
    this.announcer = new Announcer();
    this.link = IDLE;
  }

  private retry(): void {
    if (this.follower) this.follower.retry();
    else void this.begin(this.payload);
  }

  private linkChanged(link: Link): void {
    this.link = link;
    if (link.state === "expired") {
      // whoever signs in again gives a new token, and the line is built anew
      this.follower = null;
      this.dispatchEvent(new Event("ledger-sync-expired", { bubbles: true, composed: true }));
    }
  }

  private told(payload: Payload): void {
    if (this.formShown && !this.payload && !this.starting) this.notice ??= "begunElsewhere";
    this.payload = payload;
    this.starting = false;
    this.announce(payload);
    if (atWork(payload.state)) {
      this.awaited.add(payload.syncId);
      return;
    }
    this.confirming = false;
    if (!this.awaited.delete(payload.syncId)) return;
    const name = payload.state === "failed" ? "sync-error" : "sync-complete";
    this.dispatchEvent(new CustomEvent<Payload>(name, { detail: payload, bubbles: true, composed: true }));
    if (!this.open) this.hangUp();
  }

  private get formShown(): boolean {
    return this.renderRoot.querySelector("ledger-sync-start-form") !== null;
  }

  private announce(payload: Payload): void {
    if (!this.open || !this.announcer.due(`${payload.state} ${payload.step} ${payload.command}`)) return;
    this.announced = this.words.t.valueText(payload.progress, messageOf(payload, this.words));
  }

  // -- what a person does

  private async start(event: CustomEvent<StartRequest>): Promise<void> {
    const { api, follower } = this;
    if (!api || !follower) return;
    this.starting = true;
    this.problem = this.notice = null;
    try {
      const { syncId } = await api.start(event.detail);
      this.awaited.add(syncId);
      follower.follow(syncId);
    } catch (problem) {
      if (this.api !== api) return;
      this.starting = false;
      if (problem instanceof Problem && problem.status === 409 && problem.syncId !== null) {
        this.notice = "alreadyRunning";
        follower.follow(problem.syncId);
      } else {
        this.problem = problem;
      }
    }
  }

  private async startAnother(): Promise<void> {
    await this.begin();
    await this.updateComplete;
    this.renderRoot.querySelector<HTMLElement>(".body")?.focus();
  }

  private async command(command: Command): Promise<void> {
    const { api, follower, payload } = this;
    if (!api || !follower || !payload) return;
    this.commanding = true;
    this.problem = null;
    try {
      const answer = await api.command(payload.syncId, command);
      this.awaited.add(payload.syncId);
      follower.take(answer);
      // a run that had failed is at work again
      follower.follow(payload.syncId);
    } catch (problem) {
      if (this.api === api) this.problem = problem;
    } finally {
      this.commanding = false;
      if (this.confirming) await this.goOn();
    }
  }

  private async askWhetherToCancel(): Promise<void> {
    this.confirming = true;
    await this.updateComplete;
    this.renderRoot.querySelector<HTMLElement>("#go-on")?.focus();
  }

  private async goOn(): Promise<void> {
    this.confirming = false;
    await this.updateComplete;
    const back = this.renderRoot.querySelector<HTMLButtonElement>("#cancel:not(:disabled)");
    (back ?? this.renderRoot.querySelector<HTMLElement>(".body"))?.focus();
  }
}
