// Asking the unit again and again, and not at all while nobody looks.

const TIMEOUT_MS = 5000;

export function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => document.addEventListener("visibilitychange", () => resolve(visible()), { once: true }));
}

export async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (answer.status === 401) throw new Error("The token is not valid any more: load the page again.");
  if (!answer.ok) throw new Error(`The unit answered ${answer.status}.`);
  return answer.json();
}

export async function poll(task, period) {
  for (;;) {
    await visible();
    await task();
    await new Promise((resolve) => setTimeout(resolve, period));
  }
}
