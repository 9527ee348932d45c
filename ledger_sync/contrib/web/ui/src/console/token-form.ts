import { css, html, nothing, type TemplateResult } from "lit";
import { property, state } from "lit/decorators.js";
import { define, Piece } from "../ui/piece";
import { base, controls } from "../ui/theme";

/** Asks for a token. Fires `token` with it. */
class TokenForm extends Piece {
  @property({ attribute: false }) problem: unknown = null;

  @state() private empty = false;

  static override styles = [
    base,
    controls,
    css`
      form {
        display: grid;
        gap: 1rem;
        max-width: 28rem;
        margin: 8vh auto 0;
        padding: 1.6rem;
        border: 1px solid var(--line);
        border-radius: 20px;
        background: var(--panel);
        box-shadow: var(--shadow);
      }

      h2 {
        margin: 0;
      }
    `,
  ];

  override render(): TemplateResult {
    const { t } = this.words;
    return html`<form @submit=${this.submit} novalidate>
      <h2>${t.tokenTitle}</h2>
      <p class="soft">${t.tokenLead}</p>
      <ledger-sync-problem .words=${this.words} .problem=${this.problem} ?hidden=${!this.problem}></ledger-sync-problem>
      <label class="field">${t.token}<input type="password" name="token" autocomplete="off" spellcheck="false" /></label>
      <div role="alert">${this.empty ? html`<p class="notice bad">${t.tokenEmpty}</p>` : nothing}</div>
      <button class="primary">${t.signIn}</button>
    </form>`;
  }

  private submit(event: SubmitEvent): void {
    event.preventDefault();
    const token = String(new FormData(event.currentTarget as HTMLFormElement).get("token") ?? "").trim();
    this.empty = token === "";
    if (token) this.dispatchEvent(new CustomEvent<string>("token", { detail: token }));
  }
}

define("ledger-sync-token-form", TokenForm);
