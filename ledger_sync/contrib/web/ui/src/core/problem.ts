/** What a problem+json answer says. */
export interface ProblemText {
  title: string;
  detail: string | null;
  remedy: string | null;
}

/** An answer of the server that says no. */
export class Problem extends Error implements ProblemText {
  override readonly name = "Problem";

  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string | null = null,
    readonly remedy: string | null = null,
    readonly syncId: string | null = null,
  ) {
    super(title);
  }

  /** The token is missing, wrong or expired. */
  get unauthorized(): boolean {
    return this.status === 401;
  }

  /** The server, or something before it, is not well just now; asking again may help. */
  get passing(): boolean {
    return this.status >= 500 || this.status === 429 || this.status === 408;
  }
}

/** What was open to us is so no longer: the token has ended. */
export class Expired extends Error {
  override readonly name = "Expired";
}

/** No answer at all. */
export class Unreachable extends Error {
  override readonly name = "Unreachable";
}

/** Whether asking again later may help. */
export function isPassing(error: unknown): boolean {
  return error instanceof Unreachable || (error instanceof Problem && error.passing);
}
