import { backoffMs } from "./backoff";
import { isPassing, Problem } from "./problem";

/** Do something again and again until the server answers; what it answers may still be a problem. */
export async function untilReached<T>(
  act: (signal: AbortSignal) => Promise<T>,
  signal: AbortSignal,
  onMiss: (retryAt: number, problem: Problem | null) => void,
): Promise<T> {
  for (let failures = 1; ; failures += 1) {
    try {
      return await act(signal);
    } catch (error) {
      if (signal.aborted || !isPassing(error)) throw error;
      const wait = backoffMs(failures);
      onMiss(Date.now() + wait, error instanceof Problem ? error : null);
      await pause(wait, signal);
    }
  }
}

function pause(wait: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, wait);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    });
  });
}
