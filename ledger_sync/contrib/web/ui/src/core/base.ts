/** Where the server is mounted, told from the address of one of its files: what lies above `/assets/`. */
export function baseOf(moduleUrl: string): string {
  const cut = moduleUrl.lastIndexOf("/assets/");
  return cut < 0 ? "" : moduleUrl.slice(0, cut);
}

/** A mount point as an attribute gives it, without the slashes at its end. */
export function trimmedBase(base: string): string {
  return base.replace(/\/+$/, "");
}
