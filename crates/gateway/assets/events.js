// Server-sent events over fetch: EventSource cannot send Last-Event-ID on its first request, which
// a page needs that was loaded anew.

import { pause } from "./api.js";

// The server sends a comment every 15 seconds; silence of this length means that the line is dead.
const SILENCE = 40_000;
const FIRST_WAIT = 500;
const LONGEST_WAIT = 10_000;

/** `<version>.<n>` as two numbers. */
export function place(id) {
  const [version, n] = id.split(".").map(Number);
  return { version, n: n || 0 };
}

function isAfter(id, last) {
  if (!last) return true;
  const [a, b] = [place(id), place(last)];
  return a.version !== b.version ? a.version > b.version : a.n > b.n;
}

/**
 * Follows a stream for ever, from after `lastId`, across lost connections and restarts of the server.
 * `on.event(name, data, id)` sees each id once. `on.connected(bool)` tells of the line.
 * `on.refused(status)` ends it: the server does not want us.
 */
export function follow(path, lastId, on) {
  const ended = new AbortController();
  let last = lastId;
  let wait = FIRST_WAIT;

  const take = (name, data, id) => {
    if (id) {
      if (!isAfter(id, last)) return;
      last = id;
    }
    on.event(name, data, id);
  };

  const once = async () => {
    const line = new AbortController();
    const end = () => line.abort();
    ended.signal.addEventListener("abort", end, { once: true });
    let silence = setTimeout(end, SILENCE);
    try {
      const headers = { Accept: "text/event-stream" };
      if (last) headers["Last-Event-ID"] = last;
      const response = await fetch(path, { headers, signal: line.signal, cache: "no-store" });
      if (response.status >= 400 && response.status < 500 && response.status !== 408 && response.status !== 429) {
        ended.abort();
        on.refused(response.status);
        return;
      }
      if (!response.ok) return;
      on.connected(true);
      const parse = parser(take);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        wait = FIRST_WAIT;
        clearTimeout(silence);
        silence = setTimeout(end, SILENCE);
        parse(value);
      }
    } catch {
      // Whatever broke the line, the answer is to ask again.
    } finally {
      clearTimeout(silence);
      ended.signal.removeEventListener("abort", end);
    }
  };

  const run = async () => {
    while (!ended.signal.aborted) {
      await once();
      if (ended.signal.aborted) return;
      on.connected(false);
      await awake(wait * (0.75 + Math.random() / 2), ended.signal);
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  };
  run();
  return () => ended.abort();
}

/** Waits, but not longer than until the machine is on a network again or the page is looked at. */
async function awake(milliseconds, signal) {
  const sooner = new AbortController();
  const end = () => sooner.abort();
  window.addEventListener("online", end);
  document.addEventListener("visibilitychange", end);
  signal.addEventListener("abort", end, { once: true });
  await pause(milliseconds, sooner.signal);
  window.removeEventListener("online", end);
  document.removeEventListener("visibilitychange", end);
}

/** Cuts text that comes in any pieces into events (HTML standard, "Server-sent events"). */
export function parser(take) {
  let rest = "";
  let event = { name: "", data: [], id: "" };
  const field = (line) => {
    if (line === "") {
      if (event.data.length) {
        let data = null;
        try {
          data = JSON.parse(event.data.join("\n"));
        } catch {
          // An event that is not ours.
        }
        if (data) take(event.name || data.type || "message", data, event.id);
      }
      event = { name: "", data: [], id: "" };
      return;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") event.name = value;
    else if (name === "data") event.data.push(value);
    else if (name === "id") event.id = value;
  };
  return (text) => {
    rest += text;
    // A carriage return at the very end may be half of a line's end.
    const whole = rest.endsWith("\r") ? rest.slice(0, -1) : rest;
    const lines = whole.split(/\r\n|\n|\r/);
    const tail = lines.pop();
    lines.forEach(field);
    rest = tail + (rest.endsWith("\r") ? "\r" : "");
  };
}
