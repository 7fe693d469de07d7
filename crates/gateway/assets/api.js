// The gateway's HTTP interface: JSON in, JSON or a problem (RFC 9457) out.

/** A call that did not succeed. `status` 0 means that the server was not reached. */
export class Problem extends Error {
  constructor(status, body, retryAfterSeconds) {
    super(body?.detail || body?.title || (status ? `The server answered ${status}.` : "The server cannot be reached."));
    this.status = status;
    this.code = body?.code ?? "";
    this.retryAfterSeconds = retryAfterSeconds;
  }

  /** Whether the same call may succeed later, by itself. */
  get passes() {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

// A page elsewhere cannot set this header without asking: it guards what the cookie allows.
const OURS = { "X-Carrel-Request": "1" };

export async function call(method, path, body, headers = {}) {
  const request = { method, headers: { Accept: "application/json", ...headers }, cache: "no-store" };
  if (method !== "GET") Object.assign(request.headers, OURS);
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch {
    throw new Problem(0);
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Problem(response.status, answer, Number(response.headers.get("Retry-After")) || 0);
  return answer;
}

/** Takes the single-use code out of the address, so that it is in no history and no bookmark. */
export function takeCode() {
  const inFragment = new URLSearchParams(location.hash.slice(1)).get("code");
  const code = inFragment ?? new URLSearchParams(location.search).get("code");
  if (code !== null) history.replaceState(null, "", location.pathname);
  return code;
}

export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
