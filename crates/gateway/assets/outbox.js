// Messages on their way. Each has an idempotency key that is kept until the server has accepted it,
// so that a page loaded anew sends the same message and not a second one.

const MAX_AGE = 24 * 60 * 60 * 1000;

export class Outbox {
  #place;
  #letters;

  constructor(learner) {
    this.#place = `carrel.${learner}.outbox`;
    this.#letters = this.#load();
  }

  get letters() {
    return [...this.#letters];
  }

  add(text, attachments) {
    const letter = { key: uuid(), text, attachments, time: Date.now() };
    this.#letters.push(letter);
    this.#save();
    return letter;
  }

  remove(key) {
    this.#letters = this.#letters.filter((letter) => letter.key !== key);
    this.#save();
  }

  #load() {
    try {
      const stored = JSON.parse(localStorage.getItem(this.#place)) ?? [];
      return stored.filter((letter) => Date.now() - letter.time < MAX_AGE);
    } catch {
      return [];
    }
  }

  #save() {
    try {
      localStorage.setItem(this.#place, JSON.stringify(this.#letters));
    } catch {
      // Too large for the browser's store: what fits is kept, the rest lives as long as the page.
      const small = this.#letters.filter((letter) => letter.attachments.length === 0);
      try {
        localStorage.setItem(this.#place, JSON.stringify(small));
      } catch {
        // No store at all (a private window): the page alone remembers.
      }
    }
  }
}

/** A random UUID (RFC 9562, version 4); `crypto.randomUUID` is missing where the page is not secure. */
function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
