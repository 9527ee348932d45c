import { css, html, nothing, svg, type TemplateResult } from "lit";
import { property } from "lit/decorators.js";
import { rateText } from "../core/amounts";
import { momentText } from "../core/times";
import type { Run } from "../core/types";
import { define, Piece } from "../ui/piece";
import { base } from "../ui/theme";

const HEIGHT = 170;
const TOP = 14;

/** Lines per second of the runs, the oldest to the left. */
class ThroughputChart extends Piece {
  /** As the server lists them: the newest first. */
  @property({ attribute: false }) runs: readonly Run[] = [];

  static override styles = [
    base,
    css`
      :host {
        display: block;
      }

      svg {
        display: block;
        width: calc(100% - 3.4rem);
        height: ${HEIGHT}px;
        margin-inline-start: 3.4rem;
        overflow: visible;
      }

      .bar {
        fill: var(--accent);
      }

      .grid {
        stroke: var(--line);
      }

      text {
        fill: var(--ink-soft);
        font-size: 0.8125rem;
        font-variant-numeric: tabular-nums;
        text-anchor: end;
      }

      .times {
        display: flex;
        justify-content: space-between;
        gap: 1rem;
        margin-inline-start: 3.4rem;
        color: var(--ink-soft);
        font-size: 0.8125rem;
      }

      .times :last-child {
        text-align: end;
      }
    `,
  ];

  override render(): TemplateResult {
    const { t, lang } = this.words;
    const runs = [...this.runs].reverse();
    const fastest = Math.max(0, ...runs.map((run) => run.linesPerSecond ?? 0));
    if (fastest === 0) return html`<p class="soft">${t.throughputNone}</p>`;
    const top = roundUp(fastest);
    const y = (rate: number): number => HEIGHT - (HEIGHT - TOP) * (rate / top);
    const slot = 100 / runs.length;
    const [first, last] = [momentText(runs[0]!.startedAt, lang), momentText(runs.at(-1)!.startedAt, lang)];
    return html`
      <svg role="img" aria-label=${t.throughputLabel(runs.length, first, last)}>
        ${[0, top / 2, top].map(
          (rate) =>
            svg`<line class="grid" x1="0" x2="100%" y1=${y(rate)} y2=${y(rate)} />
              <text x="-8" y=${y(rate) + 4}>${rate ? rateText(rate, lang) : 0}</text>`,
        )}
        ${runs.map((run, index) =>
          run.linesPerSecond === null
            ? nothing
            : svg`<rect class="bar" rx="3" x="${slot * (index + 0.18)}%" width="${slot * 0.64}%"
                y=${y(run.linesPerSecond)} height=${HEIGHT - y(run.linesPerSecond)}>
                <title>${t.runTitle(run.syncId)}: ${t.linesPerSecond(rateText(run.linesPerSecond, lang))}</title>
              </rect>`,
        )}
      </svg>
      <div class="times" aria-hidden="true"><span>${first}</span><span>${last}</span></div>
    `;
  }
}

const ROUND = [1, 1.2, 1.6, 2, 3, 4, 6, 8, 10];

/** The next round number, to end an axis with. */
function roundUp(number: number): number {
  const power = 10 ** Math.floor(Math.log10(number));
  return power * ROUND.find((round) => round * power >= number)!;
}

define("ledger-sync-throughput", ThroughputChart);
