// The operator's page: every learner with its state, and what may be done about it. Live by asking
// again every two seconds while it is looked at.

import { call, pause, Problem, takeCode } from "./api.js";
import { byId, element } from "./dom.js";
import { openCreate, openLearner, openLink, sure } from "./console-dialogs.js";
import { ago, dollars } from "./units.js";

const EVERY = 2_000;
const MOST = 2_000;
const AWAKE = new Set(["Waking", "Restoring", "Ready", "Busy", "Draining", "Snapshotting"]);
const LOOKS = { Ready: "awake", Busy: "awake", Failed: "bad", Deleting: "bad", Asleep: "" };

let learners = [];
let cut = false;
const rows = new Map();

async function refresh() {
  const all = [];
  let after = null;
  do {
    const more = after ? `&after=${encodeURIComponent(after)}` : "";
    const page = await call("GET", `/admin/v1/learners?limit=500${more}`);
    all.push(...page.learners);
    after = page.next;
  } while (after && all.length < MOST);
  learners = all;
  cut = after !== null && after !== undefined;
  draw();
}

function draw() {
  const awake = learners.filter((learner) => AWAKE.has(learner.state));
  byId("figure-all").textContent = `${learners.length}${cut ? "+" : ""}`;
  byId("figure-awake").textContent = awake.length;
  byId("figure-busy").textContent = learners.filter((learner) => learner.state === "Busy").length;
  byId("figure-cost").textContent = dollars(learners.reduce((sum, learner) => sum + learner.cost_today_nano_usd, 0));
  drawIsolation();

  const wanted = byId("filter").value.trim().toLowerCase();
  const shown = learners.filter((l) => `${l.id} ${l.class} ${l.state}`.toLowerCase().includes(wanted));
  const ids = new Set(shown.map((learner) => learner.id));
  for (const [id, row] of rows) {
    if (!ids.has(id)) {
      row.root.remove();
      rows.delete(id);
    }
  }
  let before = null;
  for (const learner of shown) {
    const row = rows.get(learner.id) ?? new Row(learner.id);
    rows.set(learner.id, row);
    row.show(learner);
    // Only a row out of its place is moved, so that the focus stays where it is.
    const place = before ? before.nextSibling : byId("rows").firstChild;
    if (row.root !== place) byId("rows").insertBefore(row.root, place);
    before = row.root;
  }
  byId("empty").hidden = shown.length > 0;
  byId("empty").textContent = learners.length ? "No learner matches." : "No learners yet. Make the first one.";
  const counted = wanted ? `${shown.length} of ${learners.length}` : "";
  if (byId("count").textContent !== counted) byId("count").textContent = counted;
}

function drawIsolation() {
  const open = learners.some((learner) => learner.isolation === "process");
  const missing = [...new Set(learners.flatMap((learner) => learner.limits_missing))];
  const words = [];
  if (open) words.push("Nothing isolates learners from each other or from this machine (isolation: process).");
  if (missing.length) words.push(`Limits that cannot be set here: ${missing.join(", ")}.`);
  byId("isolation").textContent = words.join(" ");
  byId("isolation").hidden = words.length === 0;
}

class Row {
  constructor(id) {
    this.id = id;
    const cell = (name) => element("td", { class: name });
    this.state = element("span");
    this.cells = [cell(""), cell("number"), cell(""), cell(""), cell("number")];
    const button = (label, act) => element("button", { class: "button", type: "button", onclick: act }, label);
    this.turn = button("Wake", () => this.wakeOrSleep());
    const name = element("button", { class: "name", type: "button", onclick: () => openLearner(this.learner) }, id);
    const link = button("Chat link", () => act(() => openLink(id)));
    link.setAttribute("aria-label", `Make a chat link for ${id}`);
    this.root = element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      element("td", {}, this.state),
      ...this.cells,
      element("td", { class: "actions" }, this.turn, link),
    );
  }

  show(learner) {
    this.learner = learner;
    this.awake = AWAKE.has(learner.state);
    this.state.className = `pill ${LOOKS[learner.state] ?? "warn"}`;
    this.state.title = learner.state_detail;
    const newest = learner.newest_snapshot;
    const texts = [
      learner.class,
      learner.epoch,
      ago(learner.last_activity_time),
      newest ? `${newest.generation ? `#${newest.generation}, ` : ""}${ago(newest.time)}` : "none",
      dollars(learner.cost_today_nano_usd),
    ];
    write(this.state, learner.state);
    this.cells.forEach((cell, index) => write(cell, String(texts[index])));
    write(this.turn, this.awake ? "Sleep" : "Wake");
    this.turn.disabled = learner.state === "Deleting";
    this.turn.setAttribute("aria-label", `${this.awake ? "Put" : "Wake"} ${this.id}${this.awake ? " to sleep" : ""}`);
  }

  async wakeOrSleep() {
    const what = this.awake ? "sleep" : "wake";
    if (this.learner.state === "Busy") {
      const yes = await sure("A turn is running", `${this.id} is being answered. It goes to sleep when the turn has ended.`, "Put to sleep");
      if (!yes) return;
    }
    await act(() => call("POST", `/admin/v1/learners/${this.id}/${what}`), `${this.id}: ${what} asked for`);
  }
}

function write(into, text) {
  if (into.textContent !== text) into.textContent = text;
}

/** Does something, says how it went, and looks again. */
async function act(what, words) {
  try {
    await what();
    if (words) tell(words);
    await refresh();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.status === 401) return shut("Your session has ended.");
    tell(problem.message);
  }
}

let quiet = 0;
function tell(words) {
  byId("told").textContent = words;
  byId("told").hidden = false;
  clearTimeout(quiet);
  quiet = setTimeout(() => (byId("told").hidden = true), 5_000);
}

function shut(words) {
  byId("console").hidden = true;
  byId("door").hidden = false;
  byId("sign-in-problem").textContent = words;
  byId("sign-in-problem").hidden = !words;
  byId("token").focus();
}

async function watch() {
  for (let wait = EVERY; ; ) {
    try {
      if (document.visibilityState === "visible") await refresh();
      byId("line").hidden = true;
      wait = EVERY;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.status === 401 || problem.status === 403) return shut("Your session has ended.");
      byId("line").hidden = false;
      wait = Math.min(wait * 1.5, 15_000);
    }
    await pause(wait);
  }
}

async function enter() {
  await refresh();
  byId("door").hidden = true;
  byId("console").hidden = false;
  watch();
}

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await call("POST", "/console/sign-in", { token: byId("token").value.trim() });
    byId("token").value = "";
    await enter();
  } catch (problem) {
    shut(problem.status === 401 ? "This is not the admin token." : problem.message);
  }
});
byId("filter").addEventListener("input", draw);
byId("create").addEventListener("click", () => openCreate((id) => act(async () => {}, `${id} is there`)));

const code = takeCode();
try {
  if (code) await call("POST", "/console/sign-in", { code });
  await enter();
} catch (problem) {
  if (!(problem instanceof Problem)) throw problem;
  const stranger = problem.status === 401 || problem.status === 403;
  const words = code ? "This link has been used. Paste the token instead." : "";
  shut(stranger ? words : problem.message);
}
