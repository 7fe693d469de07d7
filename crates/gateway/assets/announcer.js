// For screen readers: finished sentences of the answer, never single tokens, in a polite live region.

import { element } from "./dom.js";

// A sentence ends with its mark and white space after it, or with a line; "2." at the beginning of
// a line is a list's number.
const SENTENCE = /[^\n]*?(?:(?<!^\s*\d{1,3})[.!?…:](?=\s)|\n)\s*/my;
const KEPT = 12;

export class Announcer {
  #region;
  #rest = "";

  constructor(region) {
    this.#region = region;
  }

  /** Takes more of the answer; says the sentences that it finishes. */
  add(text) {
    this.#rest += text;
    let from = 0;
    SENTENCE.lastIndex = 0;
    while (SENTENCE.exec(this.#rest)) from = SENTENCE.lastIndex;
    if (from) this.say(this.#rest.slice(0, from));
    this.#rest = this.#rest.slice(from);
  }

  /** The answer is whole: says what is left of it. */
  finish() {
    this.say(this.#rest);
    this.#rest = "";
  }

  /** What was begun is void. */
  forget() {
    this.#rest = "";
  }

  say(text) {
    const plain = text.replace(/[*`#]+/g, "").trim();
    if (!plain) return;
    this.#region.append(element("p", {}, plain));
    while (this.#region.children.length > KEPT) this.#region.firstChild.remove();
  }
}
