// The learner's page: signs in, shows the history, sends messages, follows the events.

import { Announcer } from "./announcer.js";
import { call, pause, Problem, takeCode } from "./api.js";
import { Composer } from "./composer.js";
import { byId, day, element } from "./dom.js";
import { follow, place } from "./events.js";
import { Outbox } from "./outbox.js";
import { TurnView } from "./turn-view.js";

const PAGE = 30;
const WAKE_EVERY = 60_000;
const NEAR_THE_END = 120;

const scroll = byId("scroll");
const log = byId("log");

class Chat {
  /** Turn id to its view, those that have ended too. */
  #turns = new Map();
  #oldest = null;
  #oldestTurn = "";
  #stopFollowing = () => {};
  #wokenAt = 0;
  #announcer = new Announcer(byId("announcements"));
  #pinned = true;

  constructor(learner) {
    this.learner = learner;
    this.base = `/v1/learners/${encodeURIComponent(learner)}`;
    this.outbox = new Outbox(learner);
    this.composer = new Composer({
      send: (text, attachments) => this.#send(text, attachments),
      stop: () => this.#stop(),
      intent: () => this.#wake(),
    });
  }

  async open() {
    await this.#history();
    byId("door").hidden = true;
    byId("desk").hidden = false;
    this.#listen();
    for (const letter of this.outbox.letters) this.#post(letter, this.#showLetter(letter));
    this.#greet();
    this.#toEnd();
    this.composer.focus();
    this.#follow(this.#checkpoint);
  }

  // --- History ---------------------------------------------------------------------------------

  async #history() {
    const before = this.#oldest ? `&before=${encodeURIComponent(this.#oldest)}` : "";
    const { messages } = await call("GET", `${this.base}/messages?limit=${PAGE}${before}`);
    const made = document.createDocumentFragment();
    let lastDay = "";
    for (const entry of messages) {
      if (this.#turns.has(entry.turn_id)) continue;
      if (day(entry.sent_time) !== lastDay) {
        lastDay = day(entry.sent_time);
        made.append(element("p", { class: "day" }, lastDay));
      }
      made.append(this.#fromHistory(entry).root);
    }
    // A day that goes on has its line above its first message.
    const first = log.querySelector(".day");
    if (first && first.textContent === lastDay) first.remove();
    log.prepend(made);
    this.#oldest = messages[0]?.message_id ?? this.#oldest;
    this.#oldestTurn = messages[0]?.turn_id ?? this.#oldestTurn;
    byId("earlier").hidden = messages.length < PAGE;
  }

  #fromHistory({ turn_id, text, attachments, sent_time, turn }) {
    const view = new TurnView().message(text, attachments ?? [], sent_time);
    this.#turns.set(turn_id, view);
    this.#show(turn_id, view, turn);
    return view;
  }

  #show(turnId, view, turn) {
    view.status(turn.state, "");
    for (const tool of turn.tools) view.tool(tool.tool_id, tool.status, tool.summary, tool.name);
    if (turn.state === "done" || turn.state === "stopped") {
      view.done(turn.reply ?? { text: "", files: [] }, turn.stopped || turn.state === "stopped", this.#file(turnId));
    } else if (turn.state === "failed") {
      const error = turn.error ?? {};
      view.fail(error.detail, error.retryable, () => this.#again(view), error.partial_text);
    }
  }

  #file(turnId) {
    return (n) => `${this.base}/turns/${turnId}/files/${n}`;
  }

  // --- Sending ---------------------------------------------------------------------------------

  #send(text, attachments) {
    const letter = this.outbox.add(text, attachments);
    const view = this.#showLetter(letter);
    this.#pinned = true;
    this.#greet();
    this.#toEnd();
    this.#post(letter, view);
  }

  #showLetter(letter) {
    const view = new TurnView().message(letter.text, letter.attachments, letter.time);
    view.sending("");
    log.append(view.root);
    return view;
  }

  /** Posts until it is accepted or refused. The key makes a repeat the same message. */
  async #post(letter, view) {
    const body = { text: letter.text, attachments: letter.attachments };
    for (let wait = 500; ; wait = Math.min(wait * 2, 10_000)) {
      try {
        const { turn_id } = await call("POST", `${this.base}/messages`, body, { "Idempotency-Key": letter.key });
        this.outbox.remove(letter.key);
        this.#accepted(turn_id, view, letter);
        return;
      } catch (problem) {
        if (!(problem instanceof Problem)) throw problem;
        if (problem.status === 401) return shut("ended");
        if (!problem.passes) return this.#refused(problem, letter, view);
        view.sending("Waiting for the connection…");
        await pause(problem.retryAfterSeconds * 1000 || wait);
      }
    }
  }

  #accepted(turnId, view, letter) {
    const known = this.#turns.get(turnId);
    if (known) {
      // Its events, or the history, were here first.
      known.message(letter.text, letter.attachments, letter.time);
      if (view.root.isConnected) view.root.replaceWith(known.root);
    } else {
      view.accepted();
      view.status("queued", "Just a moment…");
      this.#turns.set(turnId, view);
    }
    this.#showRunning();
    this.#keepAtEnd();
  }

  #refused(problem, letter, view) {
    const drop = () => (this.outbox.remove(letter.key), view.root.remove(), this.#greet());
    const words =
      problem.code === "queue_full" || problem.code === "rate_limited"
        ? "That was a lot at once. Give your tutor a moment."
        : `Not sent: ${problem.message}`;
    view.sending(words, () => (view.sending(""), this.#post(letter, view)), drop);
    this.#announcer.say(words);
  }

  async #stop() {
    const running = [...this.#turns].find(([, view]) => !view.ended);
    if (!running) return;
    const [turnId, view] = running;
    view.status("running", "Stopping…");
    try {
      await call("POST", `${this.base}/turns/${turnId}/stop`);
    } catch (problem) {
      view.status("running", problem.status === 409 ? "" : "Could not stop: the line is down.");
    }
  }

  #wake() {
    if (Date.now() - this.#wokenAt < WAKE_EVERY) return;
    this.#wokenAt = Date.now();
    // Only a hint, so that the desk is ready when the message comes.
    call("POST", `${this.base}/wake`).catch(() => {});
  }

  // --- Events ----------------------------------------------------------------------------------

  #follow(from) {
    this.#stopFollowing();
    this.#stopFollowing = follow(`${this.base}/events`, from, {
      event: (name, data, id) => this.#take(name, data, id),
      connected: (connected) => this.#connected(connected),
      refused: (status) => this.#turnedAway(status),
    });
  }

  #turnedAway(status) {
    if (status === 401 || status === 403 || status === 404) return shut("ended");
    // The place that we remember means nothing to this server: begin again from its history.
    this.#checkpoint = null;
    setTimeout(() => location.reload(), 2_000);
  }

  #connected(connected) {
    byId("line").hidden = connected;
  }

  #take(name, data, id) {
    const view = this.#turns.get(data.turn_id) ?? this.#unknown(data.turn_id);
    if (view && !view.ended) this.#apply(name, data, view, place(id));
    this.#showRunning();
    // A page loaded anew begins from a place where nothing was running, so that it misses no text.
    const settled = ![...this.#turns.values()].some((other) => !other.ended);
    if (settled && place(id).n === 0) this.#checkpoint = id;
    this.#keepAtEnd();
  }

  #apply(name, data, view, { n }) {
    switch (name) {
      case "state":
        view.status(data.state, data.detail);
        if (data.state === "restoring" || data.state === "waking") this.#announcer.say(data.detail);
        break;
      case "delta":
        view.say(data.text);
        this.#announcer.add(data.text);
        break;
      case "tool":
        view.tool(data.tool_id, data.status, data.summary, data.name);
        break;
      case "restart":
        // A place within a version: the same attempt goes on, and only its text follows whole.
        view.restart(data.reason, n === 0);
        this.#announcer.forget();
        break;
      case "done": {
        const unsaid = view.text === "" && data.reply.text;
        view.done(data.reply, data.stopped, this.#file(data.turn_id));
        if (unsaid) this.#announcer.add(data.reply.text);
        this.#announcer.finish();
        if (data.stopped) this.#announcer.say("Stopped.");
        break;
      }
      case "error": {
        const again = () => this.#again(view);
        view.fail(data.detail, data.retryable, again);
        this.#announcer.finish();
        this.#announcer.say(data.detail);
        break;
      }
    }
  }

  /** A turn that was begun elsewhere (another tab, another channel): its message is fetched. */
  #unknown(turnId) {
    // Ids sort by time: what is older than the history shown is told again to a new browser.
    if (!turnId || turnId < this.#oldestTurn) return null;
    const view = new TurnView();
    this.#turns.set(turnId, view);
    log.append(view.root);
    this.#greet();
    call("GET", `${this.base}/turns/${turnId}`)
      .then(({ message }) => view.letter ?? view.message(message.text, message.attachments ?? [], message.sent_time))
      .catch(() => {});
    return view;
  }

  /** Sends a failed turn's message anew. Files that only the server has are the learner's to attach again. */
  #again({ letter }) {
    if (!letter) return;
    if (letter.attachments.every((file) => file.data)) this.#send(letter.text, letter.attachments);
    else this.composer.offer(letter.text);
  }

  get #checkpoint() {
    try {
      return localStorage.getItem(`carrel.${this.learner}.place`);
    } catch {
      return null;
    }
  }

  set #checkpoint(id) {
    try {
      if (id) localStorage.setItem(`carrel.${this.learner}.place`, id);
      else forgetPlace(this.learner);
    } catch {
      // Without a store, a page loaded anew asks for everything.
    }
  }

  // --- The page --------------------------------------------------------------------------------

  #listen() {
    scroll.addEventListener("scroll", () => {
      this.#pinned = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR_THE_END;
      byId("latest").hidden = this.#pinned;
    });
    byId("latest").addEventListener("click", () => {
      this.#toEnd();
      this.composer.focus();
    });
    byId("earlier").addEventListener("click", async () => {
      const fromEnd = scroll.scrollHeight - scroll.scrollTop;
      await this.#history();
      scroll.scrollTop = scroll.scrollHeight - fromEnd;
    });
    for (const opening of document.querySelectorAll(".openings button")) {
      opening.addEventListener("click", () => {
        this.#send(opening.textContent, []);
        this.composer.focus();
      });
    }
    new ResizeObserver(() => this.#keepAtEnd()).observe(log);
  }

  #greet() {
    byId("greeting").hidden = log.childElementCount > 0;
  }

  #showRunning() {
    this.composer.running([...this.#turns.values()].some((view) => !view.ended));
  }

  #keepAtEnd() {
    if (this.#pinned) this.#toEnd();
  }

  #toEnd() {
    scroll.scrollTop = scroll.scrollHeight;
  }
}

const REASONS = {
  none: ["Ask for a new link", null],
  used: ["This link has been used", "Each link opens your desk once. Ask whoever gave it to you for a new one."],
  ended: ["Your visit has ended", "Everything you did is kept. Ask for a new link to come back to your desk."],
  away: ["Nobody is at the door", "The server cannot be reached. This page tries again by itself."],
};

/** Shows the door instead of the desk. */
function shut(reason) {
  const [title, text] = REASONS[reason];
  byId("desk").hidden = true;
  byId("door").hidden = false;
  byId("door-title").textContent = title;
  if (text) byId("door-text").textContent = text;
  byId("door-title").focus();
}

function forgetPlace(learner) {
  try {
    localStorage.removeItem(`carrel.${learner}.place`);
  } catch {
    // Without a store there is nothing to forget.
  }
}

/** Who is signed in: by the link's code, else by the cookie of an earlier visit. */
async function signIn(code) {
  if (code !== null) {
    try {
      const { learner } = await call("POST", "/v1/sign-in", { code });
      // A new session may be on a new server: no old place means anything to it.
      forgetPlace(learner);
      return learner;
    } catch (problem) {
      if (problem.passes) throw problem;
      const { learner } = await call("GET", "/v1/session").catch(() => ({ learner: null }));
      if (!learner) shut("used");
      return learner;
    }
  }
  const { learner } = await call("GET", "/v1/session").catch((problem) => {
    if (problem.passes) throw problem;
    return { learner: null };
  });
  // An operator's session opens no learner's desk.
  if (!learner) shut("none");
  return learner;
}

/** Does it once the server is there. */
async function patiently(what) {
  for (;;) {
    try {
      return await what();
    } catch (problem) {
      if (!problem.passes) throw problem;
      shut("away");
      await pause(2_000);
    }
  }
}

async function start() {
  const code = takeCode();
  const learner = await patiently(() => signIn(code));
  if (!learner) return;
  const chat = new Chat(learner);
  await patiently(() => chat.open());
}

start().catch((problem) => {
  shut("ended");
  throw problem;
});
