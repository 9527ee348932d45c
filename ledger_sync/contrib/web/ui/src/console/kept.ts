/** A word kept in the browser; a browser that refuses to keep anything is no error. */
export class Kept {
  constructor(
    private readonly name: string,
    private readonly where: () => Storage,
  ) {}

  get(): string {
    try {
      return this.where().getItem(this.name) ?? "";
    } catch {
      return "";
    }
  }

  set(word: string): void {
    try {
      if (word) this.where().setItem(this.name, word);
      else this.where().removeItem(this.name);
    } catch {
      // it lasts as long as the page then
    }
  }
}
