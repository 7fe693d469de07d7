// The console's dialogs: a new learner, a chat link, a learner with its snapshots, and "are you sure".

import { call } from "./api.js";
import { byId, element } from "./dom.js";
import { ago, dollars } from "./units.js";

for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

/** Asks for a name and a class and makes the learner; then calls `made` with the name. */
export function openCreate(made) {
  const dialog = byId("create-dialog");
  const form = byId("create-form");
  const problem = form.querySelector(".problem");
  form.reset();
  problem.hidden = true;
  form.onsubmit = async (event) => {
    event.preventDefault();
    const id = form.elements.id.value.trim();
    const name = form.elements.class.value.trim();
    try {
      await call("POST", "/admin/v1/learners", name ? { id, class: name } : { id });
      dialog.close();
      made(id);
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
  };
  dialog.showModal();
  form.elements.id.focus();
}

/** Makes a link for the learner's chat and shows it, once. */
export async function openLink(id) {
  const { url, expires_time } = await call("POST", `/admin/v1/learners/${id}/links`);
  byId("link-title").textContent = `Chat link for ${id}`;
  const until = new Date(expires_time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  byId("link-text").textContent = `It opens the chat once, until ${until}. It is not shown again.`;
  const field = byId("link");
  const copy = byId("copy");
  field.value = url;
  copy.textContent = "Copy";
  copy.onclick = async () => {
    field.select();
    await navigator.clipboard.writeText(url).then(
      () => (copy.textContent = "Copied"),
      () => (copy.textContent = "Press Ctrl+C"),
    );
  };
  byId("link-dialog").showModal();
  field.select();
}

/** Shows all that is known of a learner, and its snapshots. */
export async function openLearner(learner) {
  const dialog = byId("learner-dialog");
  const problem = dialog.querySelector(".problem");
  const fail = (error) => {
    problem.textContent = error.message;
    problem.hidden = false;
  };
  problem.hidden = true;
  byId("learner-title").textContent = learner.id;
  const facts = [
    ["State", learner.state_detail ? `${learner.state}: ${learner.state_detail}` : learner.state],
    ["Class", learner.class],
    ["Epoch", learner.epoch],
    ["Last activity", ago(learner.last_activity_time)],
    ["Spent today", dollars(learner.cost_today_nano_usd)],
    ["Isolation", learner.isolation],
    ["Pod", learner.pod ?? "none"],
  ];
  if (learner.limits_missing.length) facts.push(["Limits missing", learner.limits_missing.join(", ")]);
  byId("learner-facts").replaceChildren(...facts.map(fact));
  byId("snapshots").replaceChildren();
  byId("snapshots-note").textContent = "Looking…";
  dialog.showModal();
  try {
    const { last_failure: failed } = await call("GET", `/admin/v1/learners/${learner.id}`);
    if (byId("learner-title").textContent !== learner.id) return;
    if (failed) facts.push(["Last turn", `failed (${failed.code}): ${failed.reason}`]);
    byId("learner-facts").replaceChildren(...facts.map(fact));
    const { snapshots } = await call("GET", `/admin/v1/learners/${learner.id}/snapshots`);
    byId("snapshots-note").textContent = snapshots.length
      ? "A snapshot is taken after every turn; older ones are thinned out."
      : "None yet: the first is taken after the first turn.";
    byId("snapshots").replaceChildren(
      ...snapshots.map((snapshot, index) => line(snapshot, index === 0, () => restore(learner.id, snapshot, dialog, fail))),
    );
  } catch (error) {
    byId("snapshots-note").textContent = "";
    fail(error);
  }
}

function fact([name, value]) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, String(value)));
}

function line(snapshot, newest, onrestore) {
  const time = new Date(snapshot.time);
  const made = element(
    "li",
    {},
    element("time", { datetime: snapshot.time, title: ago(snapshot.time) }, time.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" })),
    element("code", {}, snapshot.snapshot_id ? snapshot.snapshot_id.slice(0, 8) : "empty"),
    snapshot.generation ? element("span", { class: "quiet" }, `generation ${snapshot.generation}`) : null,
  );
  if (newest) made.append(element("span", { class: "pill awake" }, "newest"));
  else if (snapshot.damaged) made.append(element("span", { class: "pill bad" }, "damaged"));
  else if (snapshot.snapshot_id) made.append(element("button", { class: "button", type: "button", onclick: onrestore }, "Restore"));
  return made;
}

async function restore(id, snapshot, dialog, fail) {
  const when = new Date(snapshot.time).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
  const words = `The workspace of ${id} becomes what it was on ${when}. What it is now stays as a snapshot.`;
  if (!(await sure("Restore this snapshot?", words, "Restore"))) return;
  try {
    await call("POST", `/admin/v1/learners/${id}/restore`, { snapshot_id: snapshot.snapshot_id });
    dialog.close();
  } catch (error) {
    fail(error);
  }
}

/** Asks before something that is hard to undo. */
export function sure(title, text, yes) {
  const dialog = byId("sure-dialog");
  byId("sure-title").textContent = title;
  byId("sure-text").textContent = text;
  byId("sure-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
