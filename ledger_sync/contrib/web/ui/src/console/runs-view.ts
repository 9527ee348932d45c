import { css, html, nothing, type TemplateResult } from "lit";
import { countText, rateText } from "../core/amounts";
import { durationText, momentText } from "../core/times";
import type { Run } from "../core/types";
import { named } from "../i18n";
import { total } from "../dialog/step-list";
import { define } from "../ui/piece";
import { toneOf } from "../ui/tones";
import { hashOf } from "./route";
import "./throughput-chart";
import { View } from "./view";

const RUNS_MAX = 20;

/** The runs, and how fast they were. */
class RunsView extends View<Run[]> {
  static override styles = [
    ...View.styles,
    css`
      .both {
        display: grid;
        gap: 1.2rem;
      }
    `,
  ];

  protected override fetch(signal: AbortSignal): Promise<Run[]> {
    return this.api.runs(RUNS_MAX, signal);
  }

  protected override renderTop(): TemplateResult {
    const { t } = this.words;
    return html`<h2>${t.runsTitle}</h2>
      <button @click=${this.reload}>${t.reload}</button>`;
  }

  protected override renderData(runs: Run[]): TemplateResult {
    const { t } = this.words;
    if (!runs.length) {
      return html`<div class="empty"><p><strong>${t.runsEmpty}</strong></p><p>${t.runsEmptyHint}</p></div>`;
    }
    return html`<div class="both">
      <section class="panel" aria-labelledby="throughput">
        <div>
          <h3 id="throughput">${t.throughput}</h3>
          <p class="soft small">${t.throughputNote}</p>
        </div>
        <ledger-sync-throughput .words=${this.words} .runs=${runs}></ledger-sync-throughput>
      </section>
      <div class="scroller" role="region" aria-label=${t.scrollable(t.runsTitle)} tabindex="0">
        <table>
          <caption class="unseen">
            ${t.runsTitle}
          </caption>
          <thead>
            <tr>
              <th scope="col">${t.columns.run}</th>
              <th scope="col">${t.columns.state}</th>
              <th scope="col">${t.columns.started}</th>
              <th scope="col" class="number">${t.columns.duration}</th>
              <th scope="col" class="number">${t.columns.written}</th>
              <th scope="col" class="number">${t.columns.skipped}</th>
              <th scope="col" class="number">${t.columns.errors}</th>
              <th scope="col" class="number">${t.columns.speed}</th>
              <th scope="col">${t.columns.proof}</th>
              <th scope="col">${t.columns.actor}</th>
            </tr>
          </thead>
          <tbody>
            ${runs.map((run) => this.renderRun(run))}
          </tbody>
        </table>
      </div>
    </div>`;
  }

  private renderRun(run: Run): TemplateResult {
    const { t, lang } = this.words;
    return html`<tr>
      <th scope="row" class="nowrap">
        ${run.kind === "backfill"
          ? html`<a href=${hashOf("runs", {}, run.syncId)}>${t.runTitle(run.syncId)}</a>`
          : html`${t.runTitle(run.syncId)} <span class="badge">${named(t.runKinds, run.kind)}</span>`}
        ${run.dryRun ? html`<span class="badge">${t.dryRunBadge}</span>` : nothing}
      </th>
      <td><span class="badge ${toneOf(run.state)}">${named(t.states, run.state)}</span></td>
      <td class="nowrap">${momentText(run.startedAt, lang)}</td>
      <td class="number">${durationText(run.elapsedSeconds, lang)}</td>
      <td class="number">${countText(run.synced, lang)}</td>
      <td class="number">${countText(total(run.skipped), lang)}</td>
      <td class="number">${countText(run.errors, lang)}</td>
      <td class="number">${run.linesPerSecond === null ? "–" : rateText(run.linesPerSecond, lang)}</td>
      <td class="nowrap">${this.renderProof(run.clean)}</td>
      <td>${run.actor ?? "–"}</td>
    </tr>`;
  }

  private renderProof(clean: boolean | null): TemplateResult {
    const { t } = this.words;
    if (clean === null) return html`<span class="soft">${t.proofNotTaken}</span>`;
    return html`<span class="badge ${clean ? "good" : "bad"}">${clean ? t.proofClean : t.proofNotClean}</span>`;
  }
}

define("ledger-sync-runs", RunsView);
