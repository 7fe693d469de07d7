// One turn on the page: what the learner wrote, what the tutor does, says and hands over.

import { clock, element } from "./dom.js";
import { render } from "./markdown.js";

const WAITING = {
  queued: "Waiting for your turn…",
  waking: "Waking up…",
  restoring: "Fetching your notes…",
  running: "Thinking…",
  snapshotting: "Saving…",
};

export class TurnView {
  #learner = element("div", { class: "learner", hidden: true });
  #learnerState = element("div", { class: "state", hidden: true });
  #tutor;
  #text = "";
  /** Pieces of the text between tools: where each begins, and its element. */
  #pieces = [];
  #drawing = 0;
  #tools = new Map();
  #status = element("p", { class: "status", hidden: true });

  constructor() {
    this.ended = false;
    this.#tutor = element("div", { class: "tutor", hidden: true }, element("span", { class: "aside" }, "Your tutor:"));
    this.#tutor.append(this.#status);
    this.root = element("article", { class: "turn" }, this.#learner, this.#tutor);
  }

  /** What the learner wrote, where it is known. */
  message(text, attachments, time) {
    this.letter = { text, attachments };
    this.#learner.hidden = false;
    this.#learner.title = clock(time);
    this.#learner.replaceChildren(
      element("span", { class: "aside" }, `You wrote, ${clock(time)}:`),
      ...(text ? [element("div", { class: "text" }, text)] : []),
      ...(attachments.length ? [chips(attachments)] : []),
      this.#learnerState,
    );
    return this;
  }

  /** A message that is not accepted yet; `retry` is offered when it will not go by itself. */
  sending(words, retry, discard) {
    this.#learner.classList.add("waiting");
    this.#learnerState.hidden = !words;
    this.#learnerState.replaceChildren(
      words,
      ...(retry ? [element("button", { class: "button", type: "button", onclick: retry }, "Send again")] : []),
      ...(discard ? [element("button", { class: "button", type: "button", onclick: discard }, "Discard")] : []),
    );
  }

  accepted() {
    this.#learner.classList.remove("waiting");
    this.#learnerState.hidden = true;
  }

  status(state, detail) {
    const saving = state === "snapshotting";
    this.#status.classList.toggle("saving", saving);
    this.#status.textContent = detail || WAITING[state] || "Working…";
    // What is said speaks for itself, until it is being saved.
    this.#status.hidden = state === "running" && !detail && this.#text !== "" && this.#toolsRunning() === 0;
    this.#tutor.hidden = false;
  }

  say(text) {
    if (!this.#pieces.length) this.#begin();
    this.#text += text;
    this.#status.hidden = true;
    this.#tutor.hidden = false;
    this.#drawing ||= requestAnimationFrame(() => this.#draw());
  }

  tool(id, status, summary, name) {
    let line = this.#tools.get(id);
    if (!line) {
      line = element("p", { class: "tool" });
      this.#tools.set(id, line);
      this.#status.before(line);
      // What comes after this is a new piece, below it.
      this.#begin();
    }
    line.className = `tool ${status}`;
    line.textContent = summary || name;
    this.#status.hidden = true;
    this.#tutor.hidden = false;
  }

  /** What was said is void; with the attempt, what it did is too. */
  restart(reason, attempt) {
    this.#clear();
    if (attempt) {
      for (const line of this.#tools.values()) line.remove();
      this.#tools.clear();
    }
    this.status("running", reason || "Starting again…");
  }

  done(reply, stopped, fileAddress) {
    this.#end();
    if (this.#text !== reply.text) {
      for (const piece of this.#pieces) piece.into.remove();
      this.#pieces = [];
      this.#text = "";
      this.#begin();
      this.#text = reply.text;
    }
    this.#draw();
    if (reply.files?.length) {
      const links = reply.files.map((file, n) =>
        element(
          "li",
          {},
          element(
            "a",
            { class: "chip", href: fileAddress(n), download: file.name },
            element("span", {}, file.name),
            file.size_bytes ? element("small", {}, size(file.size_bytes)) : null,
          ),
        ),
      );
      this.#status.before(element("ul", { class: "chips", "aria-label": "Files from your tutor" }, ...links));
    }
    if (stopped) this.#status.before(element("p", { class: "note" }, "Stopped."));
    this.#tutor.hidden = !reply.text && !reply.files?.length && !stopped && this.#tools.size === 0;
  }

  fail(detail, retryable, retry, partialText) {
    this.#end();
    if (!this.#text && partialText) this.say(partialText);
    this.#draw();
    const box = element(
      "div",
      { class: "failure" },
      element("p", {}, detail || "Something went wrong on our side. Your message is safe."),
    );
    if (retryable) box.append(element("button", { class: "button", type: "button", onclick: retry }, "Try again"));
    this.#status.before(box);
    this.#tutor.hidden = false;
  }

  /** What was said, to be compared with what is announced. */
  get text() {
    return this.#text;
  }

  #toolsRunning() {
    return [...this.#tools.values()].filter((line) => line.classList.contains("started")).length;
  }

  #begin() {
    const last = this.#pieces.at(-1);
    if (last && last.from === this.#text.length) {
      this.#status.before(last.into);
      return;
    }
    const into = element("div", { class: "said" });
    this.#pieces.push({ from: this.#text.length, into });
    this.#status.before(into);
  }

  #draw() {
    if (this.#drawing) cancelAnimationFrame(this.#drawing);
    this.#drawing = 0;
    this.#pieces.forEach(({ from, into }, index) => {
      const to = this.#pieces[index + 1]?.from;
      // A piece that is followed by another no longer changes.
      if (to !== undefined && into.dataset.whole) return;
      if (to !== undefined) into.dataset.whole = "true";
      render(this.#text.slice(from, to), into);
      into.hidden = into.childElementCount === 0;
    });
  }

  #clear() {
    if (this.#drawing) cancelAnimationFrame(this.#drawing);
    this.#drawing = 0;
    for (const piece of this.#pieces) piece.into.remove();
    this.#pieces = [];
    this.#text = "";
  }

  #end() {
    this.ended = true;
    this.accepted();
    this.#status.hidden = true;
    for (const line of this.#tools.values()) line.classList.replace("started", "done");
  }
}

/** The files of a message, by name. */
function chips(attachments) {
  const named = attachments.map((file) => element("li", { class: "chip" }, element("span", {}, file.name)));
  return element("ul", { class: "chips", "aria-label": "Attached files" }, ...named);
}

export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${Math.round(bytes / 1024)} KB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}
