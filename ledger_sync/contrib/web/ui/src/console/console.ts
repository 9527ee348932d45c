import { css, html, nothing, type PropertyValues, type TemplateResult } from "lit";
import { property, state } from "lit/decorators.js";
import { Api } from "../core/api";
import { baseOf, trimmedBase } from "../core/base";
import type { Link } from "../core/follower";
import { Expired, Problem } from "../core/problem";
import { untilReached } from "../core/retry";
import type { Session } from "../core/types";
import "../dialog/link-note";
import { langOf, type Lang } from "../i18n";
import { Whole } from "../ui/piece";
import { base, controls, theme } from "../ui/theme";
import "./account-proof";
import "./ageing-view";
import "./explain-view";
import { ledgersOf } from "./fields";
import "./items-view";
import { Kept } from "./kept";
import "./proof-view";
import { hashOf, PAGES, routeOf, type Page, type Route } from "./route";
import "./run-page";
import "./runs-view";
import "./statement-view";
import "./token-form";

const LANGUAGES: Record<Lang, string> = { nb: "Norsk", en: "English" };

/**
 * The console: runs, proof, ageing, open items, statements and explanations, with a button that opens the dialog.
 *
 * Attributes: `token` (otherwise asked for, and kept for this tab), `tenant`, `base`, `lang`, `theme`.
 */
export class LedgerSyncConsole extends Whole {
  @property() token = "";
  @property() tenant = "";
  @property() base = baseOf(import.meta.url);

  @state() private route: Route = routeOf(location.hash);
  @state() private session: Session | null = null;
  @state() private api: Api | null = null;
  @state() private link: Link = { state: "idle" };
  @state() private problem: unknown = null;
  @state() private dialogOpen = false;
  @state() private refresh = 0;

  private signingIn: AbortController | null = null;
  private readonly keptToken = new Kept("ledger-sync-token", () => sessionStorage);
  private readonly keptTenant = new Kept("ledger-sync-tenant", () => sessionStorage);
  private readonly keptLang = new Kept("ledger-sync-lang", () => localStorage);

  static override styles = [
    theme,
    base,
    controls,
    css`
      :host {
        display: block;
        min-height: 100dvh;
        background:
          radial-gradient(60rem 30rem at 100% 0%, color-mix(in srgb, #6650c8 13%, transparent), transparent),
          radial-gradient(50rem 30rem at 0% 100%, color-mix(in srgb, #0c8079 12%, transparent), transparent),
          var(--page);
      }

      header {
        display: flex;
        flex-wrap: wrap;
        gap: 0.6rem 1.2rem;
        align-items: center;
        padding: 0.9rem clamp(1rem, 3vw, 2rem);
        background: var(--gradient);
        color: #fff;
      }

      h1 {
        flex: 1 1 12rem;
        font-size: 1.25rem;
      }

      header label {
        display: flex;
        gap: 0.5rem;
        align-items: center;
        font-size: 0.875rem;
      }

      header select,
      header button {
        width: auto;
        border-color: rgb(255 255 255 / 60%);
        background: rgb(0 0 0 / 24%);
        color: #fff;
      }

      header select {
        max-width: 12rem;
      }

      header option {
        background: var(--card-solid);
        color: var(--ink);
      }

      header button:hover:not(:disabled) {
        border-color: #fff;
        background: rgb(0 0 0 / 44%);
      }

      header :focus-visible {
        outline-color: #fff;
      }

      header button.sync {
        border-color: #fff;
        background: #fff;
        color: #0b4f6c;
      }

      header button.sync:hover:not(:disabled) {
        background: #e3f4f6;
        box-shadow: 0 4px 16px rgb(0 0 0 / 30%);
      }

      nav {
        position: sticky;
        inset-block-start: 0;
        z-index: 1;
        border-block-end: 1px solid var(--line);
        background: var(--panel);
        backdrop-filter: blur(14px);
      }

      nav ul {
        display: flex;
        max-width: 84rem;
        margin-inline: auto;
        padding-inline: clamp(0.4rem, 3vw, 2rem);
        overflow-x: auto;
      }

      nav a {
        display: block;
        padding: 0.75rem 0.9rem;
        border-block-end: 3px solid transparent;
        color: var(--ink);
        font-weight: 600;
        text-decoration: none;
        white-space: nowrap;
      }

      nav a:hover {
        border-color: var(--control-line);
      }

      nav a[aria-current] {
        border-color: var(--accent);
        color: var(--accent);
      }

      nav a:focus-visible {
        outline-offset: -3px;
      }

      main {
        max-width: 84rem;
        margin-inline: auto;
        padding: 1.6rem clamp(1rem, 3vw, 2rem) 3rem;
      }

      .wait {
        display: grid;
        gap: 1rem;
        padding-block: 2rem;
      }

      @media (max-width: 34rem) {
        header {
          column-gap: 0.6rem;
        }

        h1 {
          flex-basis: 9rem;
        }

        header .tenant {
          flex: 1 1 10rem;
        }

        header .tenant select {
          flex: 1;
          min-width: 0;
        }

        header button {
          flex: 1 1 auto;
          padding-inline: 0.6rem;
          font-size: 0.9375rem;
        }
      }
    `,
  ];

  override connectedCallback(): void {
    super.connectedCallback();
    addEventListener("hashchange", this.routeChanged);
    // a page that is served alike to everybody says English; the browser knows better what its reader speaks
    this.lang ||= this.keptLang.get() || (this.words.lang === "en" ? langOf(navigator.language) : "");
    this.token ||= this.keptToken.get();
    this.tenant ||= this.keptTenant.get();
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    removeEventListener("hashchange", this.routeChanged);
    this.signingIn?.abort();
  }

  protected override willUpdate(changed: PropertyValues): void {
    if (["token", "base"].some((name) => changed.has(name))) void this.signIn();
    else if (changed.has("tenant") && this.session) this.api = this.apiOf(this.session);
  }

  protected override updated(changed: PropertyValues): void {
    const { t, lang } = this.words;
    document.title = this.session ? `${t.pages[this.route.page]} · ${t.console}` : t.console;
    // set only when it differs: whatever is set here is heard of again
    if (this.lang && document.documentElement.lang !== lang) document.documentElement.lang = lang;
    if (changed.has("route") || changed.has("session")) {
      this.renderRoot.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
    }
  }

  override render(): TemplateResult {
    const { t, lang } = this.words;
    return html`<div lang=${lang}>
      <header>
        <h1>${t.console}</h1>
        <label
          ><span class="unseen">${t.language}</span>
          <select name="language" @change=${this.languageChosen}>
            ${Object.entries(LANGUAGES).map(
              ([code, name]) => html`<option value=${code} lang=${code} ?selected=${code === lang}>${name}</option>`,
            )}
          </select>
        </label>
        ${this.session && this.session.tenants.length > 1 ? this.renderTenants(this.session.tenants) : nothing}
        ${this.session
          ? html`<button title=${t.signedInAs(this.session.name)} @click=${() => this.signOut(null)}>${t.signOut}</button>
              <button class="sync" @click=${this.openDialog}>${t.open}</button>`
          : nothing}
      </header>
      ${this.session && this.api ? this.renderPages(this.session) : html`<main>${this.renderEntrance()}</main>`}
    </div>`;
  }

  private renderEntrance(): TemplateResult {
    const { t } = this.words;
    if (!this.token) {
      return html`<ledger-sync-token-form
        .words=${this.words}
        .problem=${this.problem}
        @token=${(event: CustomEvent<string>) => (this.token = event.detail)}
      ></ledger-sync-token-form>`;
    }
    return html`<div class="wait">
      <ledger-sync-link .words=${this.words} .link=${this.link} @retry=${this.signIn}></ledger-sync-link>
      ${this.problem
        ? html`<ledger-sync-problem .words=${this.words} .problem=${this.problem}></ledger-sync-problem>
            <div><button @click=${this.signIn}>${t.tryNow}</button></div>`
        : html`<p class="soft" role="status">${t.loading}</p>`}
    </div>`;
  }

  private renderTenants(tenants: readonly string[]): TemplateResult {
    return html`<label class="tenant"
      >${this.words.t.tenant}
      <select name="tenant" @change=${this.tenantChosen}>
        ${tenants.map((tenant) => html`<option value=${tenant} ?selected=${tenant === this.tenant}>${tenant}</option>`)}
      </select>
    </label>`;
  }

  private renderPages(session: Session): TemplateResult {
    const { t } = this.words;
    return html`
      <nav aria-label=${t.nav}>
        <ul>
          ${PAGES.map(
            (page) =>
              html`<li>
                <a href=${hashOf(page)} aria-current=${this.current(page) ?? nothing}>${t.pages[page]}</a>
              </li>`,
          )}
        </ul>
      </nav>
      <main @ledger-sync-unauthorized=${(event: CustomEvent<Problem>) => this.signOut(event.detail)} @open-dialog=${this.openDialog}>
        ${this.renderPage(session)}
      </main>
      <ledger-sync-modal
        lang=${this.words.lang}
        .token=${this.token}
        .tenant=${this.api?.access.tenant ?? ""}
        .base=${this.base}
        .open=${this.dialogOpen}
        @ledger-sync-close=${this.dialogClosed}
        @ledger-sync-expired=${() => this.signOut(new Expired())}
        @sync-complete=${this.booksChanged}
        @sync-error=${this.booksChanged}
      ></ledger-sync-modal>
    `;
  }

  /** Whether somebody is on a page, or on one that belongs to it. */
  private current(page: Page): "page" | "true" | null {
    if (page === this.route.page) return "page";
    return page === "items" && this.route.page === "statement" ? "true" : null;
  }

  private renderPage(session: Session): TemplateResult {
    const { api, words, refresh, route } = this;
    const ledgers = ledgersOf(session.kinds);
    switch (route.page) {
      case "runs":
        return route.id === null
          ? html`<ledger-sync-runs .words=${words} .api=${api} .refresh=${refresh}></ledger-sync-runs>`
          : html`<ledger-sync-run-page
              .words=${words}
              .api=${api}
              .refresh=${refresh}
              .runId=${route.id}
            ></ledger-sync-run-page>`;
      case "proof":
        return html`<ledger-sync-proof .words=${words} .api=${api} .refresh=${refresh} .query=${route.query}></ledger-sync-proof>`;
      case "ageing":
        return html`<ledger-sync-ageing
          .words=${words}
          .api=${api}
          .refresh=${refresh}
          .query=${route.query}
          .ledgers=${ledgers}
        ></ledger-sync-ageing>`;
      case "items":
        return html`<ledger-sync-items
          .words=${words}
          .api=${api}
          .refresh=${refresh}
          .query=${route.query}
          .ledgers=${ledgers}
        ></ledger-sync-items>`;
      case "statement":
        return html`<ledger-sync-statement
          .words=${words}
          .api=${api}
          .refresh=${refresh}
          .party=${route.id ?? ""}
          .query=${route.query}
          .ledgers=${ledgers}
        ></ledger-sync-statement>`;
      case "explain":
        return html`<ledger-sync-explain .words=${words} .api=${api} .refresh=${refresh} .query=${route.query}></ledger-sync-explain>`;
    }
  }

  private readonly routeChanged = (): void => {
    this.route = routeOf(location.hash);
  };

  // -- signing in and out

  private readonly signIn = async (): Promise<void> => {
    this.signingIn?.abort();
    this.session = this.api = null;
    if (!this.token) return;
    this.problem = null;
    this.link = { state: "connecting" };
    const signingIn = new AbortController();
    this.signingIn = signingIn;
    const api = new Api({ base: trimmedBase(this.base), token: this.token });
    try {
      const session = await untilReached(
        (signal) => api.session(signal),
        signingIn.signal,
        (retryAt, problem) => (this.link = { state: "unreachable", retryAt, problem }),
      );
      if (signingIn.signal.aborted) return;
      this.keptToken.set(this.token);
      this.link = { state: "idle" };
      this.session = session;
      this.api = this.apiOf(session);
    } catch (problem) {
      if (signingIn.signal.aborted) return;
      if (problem instanceof Problem && problem.unauthorized) this.signOut(problem);
      else this.problem = problem;
    }
  };

  private signOut(problem: Problem | Expired | null): void {
    this.keptToken.set("");
    this.token = "";
    this.session = this.api = null;
    this.dialogOpen = false;
    this.problem = problem;
  }

  private apiOf(session: Session): Api {
    const several = session.tenants.length > 1;
    if (several && !session.tenants.includes(this.tenant)) this.tenant = session.tenants[0]!;
    return new Api({ base: trimmedBase(this.base), token: this.token, tenant: several ? this.tenant : null });
  }

  // -- what a person chooses

  private tenantChosen(event: Event): void {
    this.tenant = (event.target as HTMLSelectElement).value;
    this.keptTenant.set(this.tenant);
  }

  private languageChosen(event: Event): void {
    this.lang = (event.target as HTMLSelectElement).value;
    this.keptLang.set(this.lang);
  }

  private openDialog(): void {
    this.dialogOpen = true;
  }

  private dialogClosed(): void {
    this.dialogOpen = false;
    this.booksChanged();
  }

  private booksChanged(): void {
    this.refresh += 1;
  }
}
