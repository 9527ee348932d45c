import { css } from "lit";

/** Colours and measures. They are inherited by the pieces inside; a page may set any of them on the element. */
export const theme = css`
  :host {
    color-scheme: light dark;
    --ink: light-dark(#14203a, #eaf0fb);
    --ink-soft: light-dark(#46546f, #b3c0d8);
    --page: light-dark(#eef3f9, #0b1120);
    --panel: light-dark(rgb(255 255 255 / 88%), rgb(19 28 48 / 90%));
    --card: light-dark(rgb(255 255 255 / 78%), rgb(37 49 77 / 62%));
    --card-solid: light-dark(#ffffff, #18223a);
    --line: light-dark(#d3dce9, #33425f);
    --control-line: light-dark(#7787a3, #7f90b1);
    --accent: light-dark(#0b6472, #6fd6d8);
    --accent-soft: light-dark(#dff1f2, #143a47);
    --on-accent: light-dark(#ffffff, #06222a);
    --good: light-dark(#11693b, #7fdca5);
    --good-soft: light-dark(#e0f4e8, #12382a);
    --warn: light-dark(#7d4a00, #f4c777);
    --warn-soft: light-dark(#fdf0d8, #3d2f12);
    --bad: light-dark(#a3172c, #ff9dab);
    --bad-soft: light-dark(#fde7ea, #451a26);
    --gradient: linear-gradient(115deg, #0a6b66, #14599c 52%, #4b3aa6);
    --bar: linear-gradient(
      90deg,
      light-dark(#0c8079, #35c2b4),
      light-dark(#1c6fc0, #4fa3f0) 60%,
      light-dark(#6650c8, #9c8cf5)
    );
    --shadow: 0 24px 60px light-dark(rgb(15 30 70 / 26%), rgb(0 0 0 / 60%));
    --radius: 14px;
    --quick: 160ms;
    --calm: 450ms;
    color: var(--ink);
    font:
      400 1rem/1.5 system-ui,
      -apple-system,
      "Segoe UI",
      Roboto,
      "Noto Sans",
      sans-serif;
  }

  :host([theme="light"]) {
    color-scheme: light;
  }

  :host([theme="dark"]) {
    color-scheme: dark;
  }
`;

/** What every shadow root needs. */
export const base = css`
  *,
  *::before,
  *::after {
    box-sizing: border-box;
  }

  [hidden] {
    display: none !important;
  }

  h1,
  h2,
  h3,
  h4,
  p,
  ul,
  ol,
  dl,
  dd,
  figure {
    margin: 0;
    padding: 0;
  }

  ul,
  ol {
    list-style: none;
  }

  h3 {
    font-size: 1.05rem;
    line-height: 1.3;
  }

  .soft {
    color: var(--ink-soft);
  }

  .small {
    font-size: 0.875rem;
  }

  .number {
    font-variant-numeric: tabular-nums;
  }

  .unseen {
    position: absolute;
    width: 1px;
    height: 1px;
    margin: -1px;
    overflow: hidden;
    clip-path: inset(50%);
    white-space: nowrap;
  }

  :focus-visible {
    outline: 3px solid var(--accent);
    outline-offset: 2px;
  }

  @media (prefers-reduced-motion: reduce) {
    *,
    *::before,
    *::after,
    *::backdrop {
      animation: none !important;
      transition: none !important;
      scroll-behavior: auto !important;
    }
  }
`;

/** Buttons, fields, badges, notices and tables. */
export const controls = css`
  button,
  input,
  select {
    font: inherit;
    color: inherit;
  }

  button {
    min-height: 2.5rem;
    padding: 0.4rem 1rem;
    border: 1px solid var(--control-line);
    border-radius: 10px;
    background: var(--card-solid);
    font-weight: 600;
    cursor: pointer;
    transition:
      background var(--quick),
      border-color var(--quick),
      box-shadow var(--quick);
  }

  button:hover:not(:disabled) {
    border-color: var(--accent);
    background: var(--accent-soft);
  }

  button:disabled {
    cursor: default;
    opacity: 0.6;
  }

  button.primary {
    border-color: var(--accent);
    background: var(--accent);
    color: var(--on-accent);
  }

  button.primary:hover:not(:disabled) {
    background: color-mix(in srgb, var(--accent) 88%, var(--ink));
    box-shadow: 0 4px 14px color-mix(in srgb, var(--accent) 35%, transparent);
  }

  button.danger {
    border-color: var(--bad);
    color: var(--bad);
  }

  button.danger:hover:not(:disabled) {
    border-color: var(--bad);
    background: var(--bad-soft);
  }

  button.link {
    min-height: 1.75rem;
    padding: 0 0.15rem;
    border: 0;
    border-radius: 4px;
    background: none;
    color: var(--accent);
    font-weight: 600;
    text-align: start;
    text-decoration: underline;
    text-underline-offset: 0.2em;
  }

  button.link:hover:not(:disabled) {
    background: none;
    text-decoration-thickness: 2px;
  }

  a {
    color: var(--accent);
    text-underline-offset: 0.2em;
  }

  label.field {
    display: grid;
    gap: 0.3rem;
    font-weight: 600;
  }

  input:not([type="checkbox"]),
  select {
    width: 100%;
    min-height: 2.5rem;
    padding: 0.35rem 0.7rem;
    border: 1px solid var(--control-line);
    border-radius: 10px;
    background: var(--card-solid);
    font-weight: 400;
  }

  label.check {
    display: flex;
    gap: 0.6rem;
    align-items: center;
    min-height: 2rem;
    cursor: pointer;
  }

  input[type="checkbox"] {
    width: 1.2rem;
    height: 1.2rem;
    flex: none;
    margin: 0;
    accent-color: var(--accent);
  }

  .badge {
    display: inline-block;
    padding: 0.05rem 0.6rem;
    border-radius: 99px;
    background: var(--accent-soft);
    color: var(--accent);
    font-size: 0.8125rem;
    font-weight: 650;
    white-space: nowrap;
  }

  .badge.good {
    background: var(--good-soft);
    color: var(--good);
  }

  .badge.warn {
    background: var(--warn-soft);
    color: var(--warn);
  }

  .badge.bad {
    background: var(--bad-soft);
    color: var(--bad);
  }

  .notice {
    display: grid;
    gap: 0.15rem;
    padding: 0.7rem 0.9rem;
    border-inline-start: 4px solid var(--accent);
    border-radius: 8px;
    background: var(--accent-soft);
    overflow-wrap: anywhere;
  }

  .notice.good {
    border-color: var(--good);
    background: var(--good-soft);
  }

  .notice.warn {
    border-color: var(--warn);
    background: var(--warn-soft);
  }

  .notice.bad {
    border-color: var(--bad);
    background: var(--bad-soft);
  }

  .scroller {
    overflow-x: auto;
    border: 1px solid var(--line);
    border-radius: var(--radius);
    background: var(--card-solid);
  }

  table {
    width: 100%;
    border-collapse: collapse;
    font-size: 0.9375rem;
  }

  caption {
    text-align: start;
  }

  th,
  td {
    padding: 0.55rem 0.8rem;
    border-block-end: 1px solid var(--line);
    text-align: start;
    vertical-align: baseline;
  }

  tbody tr:last-child > * {
    border-block-end: 0;
  }

  thead th {
    color: var(--ink-soft);
    font-size: 0.8125rem;
    font-weight: 650;
    white-space: nowrap;
  }

  tbody th {
    font-weight: 600;
  }

  tbody .soft {
    font-weight: 400;
  }

  /* names would rather have the table scroll than stand one word to a line */
  th.name,
  td.name {
    min-width: 11rem;
  }

  th.number,
  td.number {
    text-align: end;
    font-variant-numeric: tabular-nums;
    white-space: nowrap;
  }

  tfoot th,
  tfoot td {
    border-block: 2px solid var(--line);
    border-block-end: 0;
    font-weight: 700;
  }

  .nowrap {
    white-space: nowrap;
  }
`;
