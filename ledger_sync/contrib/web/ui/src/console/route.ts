/** The pages that one goes to by themselves. */
export const PAGES = ["runs", "proof", "ageing", "items", "explain"] as const;
/** Those, and the one that is about a party. */
const ALL_PAGES = [...PAGES, "statement"] as const;
export type Page = (typeof ALL_PAGES)[number];

export interface Route {
  page: Page;
  /** What follows the page: the number of a run, or a party. */
  id: string | null;
  query: string;
}

/** The route of a hash such as `#/proof?asOf=2026-01-31` or `#/runs/12`; the first page when it is none of ours. */
export function routeOf(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [page, id] = path.split("/", 2);
  const found = ALL_PAGES.find((each) => each === page);
  if (!found) return { page: PAGES[0], id: null, query: "" };
  return { page: found, id: id ? decoded(id) : null, query };
}

/** What a part of a hash stands for; one that somebody has cut off in the middle of a character, as it is. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export type Params = Record<string, string | boolean | null>;

/** The hash of a page; what is empty or false is left out. */
export function hashOf(page: Page, params: Params = {}, id?: string): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value) query.set(name, value === true ? "1" : value);
  }
  const search = query.toString();
  return `#/${page}${id === undefined ? "" : `/${encodeURIComponent(id)}`}${search ? `?${search}` : ""}`;
}
