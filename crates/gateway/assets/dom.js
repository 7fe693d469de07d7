// Making elements without markup: whatever a model or a learner wrote is only ever a text node.

/** An element with attributes, listeners (`onclick`), and children; text children become text nodes. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}

/** A moment as people say it: "14:05" today, else with the day. */
export function clock(time) {
  const then = new Date(time);
  const hours = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return then.toDateString() === new Date().toDateString()
    ? hours
    : `${then.toLocaleDateString([], { day: "numeric", month: "short" })}, ${hours}`;
}

/** The day of a moment: "Today", "Yesterday", else its date. */
export function day(time) {
  const then = new Date(time);
  const yesterday = new Date();
  yesterday.setDate(yesterday.getDate() - 1);
  if (then.toDateString() === new Date().toDateString()) return "Today";
  if (then.toDateString() === yesterday.toDateString()) return "Yesterday";
  return then.toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" });
}
