import { css, html, nothing, type TemplateResult } from "lit";
import { property } from "lit/decorators.js";
import { percentText, rateText } from "../core/amounts";
import { durationText } from "../core/times";
import type { Payload } from "../core/types";
import { cssom } from "../ui/cssom";
import { define, Piece } from "../ui/piece";
import { messageOf } from "./message";
import { base } from "../ui/theme";

/** The percentage, the bar and what the server says about time. Nothing here is reckoned by the page. */
class ProgressBar extends Piece {
  @property({ attribute: false }) payload!: Payload;
  /** Whether news of a run at work keeps coming. */
  @property({ type: Boolean }) live = false;

  static override styles = [
    base,
    css`
      :host {
        display: grid;
        gap: 0.6rem;
      }

      .head {
        display: flex;
        flex-wrap: wrap;
        align-items: baseline;
        gap: 0.1rem 0.9rem;
      }

      .percent {
        min-width: 3.6ch;
        font-size: 2.6rem;
        font-weight: 700;
        line-height: 1.1;
        letter-spacing: -0.03em;
        font-variant-numeric: tabular-nums;
      }

      .message {
        flex: 1 1 14rem;
        overflow-wrap: anywhere;
      }

      .track {
        height: 0.9rem;
        overflow: hidden;
        border: 1px solid var(--line);
        border-radius: 99px;
        background: var(--card);
      }

      .fill {
        position: relative;
        width: var(--told);
        height: 100%;
        overflow: hidden;
        border-radius: 99px;
        background: var(--bar);
        transition: width var(--calm) ease-out;
      }

      .fill.paused {
        background: var(--warn);
      }

      .fill.failed,
      .fill.cancelled {
        background: var(--bad);
      }

      .live .fill::after {
        position: absolute;
        inset: 0;
        background: linear-gradient(90deg, transparent, rgb(255 255 255 / 45%), transparent);
        content: "";
        animation: sheen 2.4s ease-in-out infinite;
      }

      /* a sheen that stands still would look like a fault of the bar */
      @media (prefers-reduced-motion: reduce) {
        .live .fill::after {
          content: none;
        }
      }

      @keyframes sheen {
        from {
          transform: translateX(-100%);
        }
        to {
          transform: translateX(100%);
        }
      }

      dl {
        display: flex;
        flex-wrap: wrap;
        gap: 0.2rem 1.6rem;
      }

      dl div {
        display: flex;
        gap: 0.4rem;
      }

      dd {
        font-weight: 600;
      }
    `,
  ];

  override render(): TemplateResult {
    const { payload, words } = this;
    const { t, lang } = words;
    const message = messageOf(payload, words);
    const { elapsed_seconds, lines_per_second, eta_seconds } = payload.snapshot;
    const facts: [string, string][] = [[t.elapsed, durationText(elapsed_seconds, lang)]];
    if (lines_per_second !== null) facts.push([t.rate, t.linesPerSecond(rateText(lines_per_second, lang))]);
    if (eta_seconds !== null) facts.push([t.eta, durationText(eta_seconds, lang)]);
    return html`
      <div class="head">
        <span class="percent" aria-hidden="true">${percentText(payload.progress, lang)}</span>
        <span class="message">${message}</span>
      </div>
      <div
        class="track ${this.live && payload.state === "running" ? "live" : ""}"
        role="progressbar"
        aria-label=${t.progress}
        aria-valuemin="0"
        aria-valuemax="100"
        aria-valuenow=${payload.progress}
        aria-valuetext=${t.valueText(payload.progress, message)}
      >
        <div class="fill ${payload.state}" ${cssom({ "--told": `${Math.min(100, Math.max(0, payload.progress))}%` })}></div>
      </div>
      <dl class="small number">
        ${facts.map(([name, value]) => html`<div><dt class="soft">${name}</dt><dd>${value}</dd></div>`)}
      </dl>
      ${payload.snapshot.note ? html`<p class="soft small" lang="en">${payload.snapshot.note}</p>` : nothing}
    `;
  }
}

define("ledger-sync-progress", ProgressBar);
