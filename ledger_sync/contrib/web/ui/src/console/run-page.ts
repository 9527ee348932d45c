import { html, nothing, type PropertyValues, type TemplateResult } from "lit";
import { property } from "lit/decorators.js";
import { atWork, type Payload } from "../core/types";
import "../dialog/run-view";
import { define } from "../ui/piece";
import { hashOf } from "./route";
import { View } from "./view";

/** One run of the history. Fires `open-dialog` when somebody wants to follow it live. */
class RunPage extends View<Payload> {
  @property() runId = "";

  protected override asksAnew(changed: PropertyValues): boolean {
    return changed.has("runId") || super.asksAnew(changed);
  }

  protected override fetch(signal: AbortSignal): Promise<Payload> {
    return this.api.run(this.runId, signal);
  }

  protected override renderTop(): TemplateResult {
    const { t } = this.words;
    return html`<div>
        <a href=${hashOf("runs")}>${t.backToRuns}</a>
        <h2>${t.runTitle(this.runId)}</h2>
      </div>
      ${this.data && atWork(this.data.state)
        ? html`<button @click=${this.follow}>${t.follow}</button>`
        : nothing}
      <button @click=${this.reload}>${t.reload}</button>`;
  }

  protected override renderData(payload: Payload): TemplateResult {
    return html`<div class="panel">
      <ledger-sync-run-view .words=${this.words} .payload=${payload} .api=${this.api}></ledger-sync-run-view>
    </div>`;
  }

  private follow(): void {
    this.dispatchEvent(new Event("open-dialog", { bubbles: true, composed: true }));
  }
}

define("ledger-sync-run-page", RunPage);
