// Writing a message: text, files, keys. Knows nothing of how it is sent.

import { byId, element } from "./dom.js";
import { size } from "./turn-view.js";

const MAX_FILES_BYTES = 8 * 1024 * 1024;
const MAX_FILES = 10;

export class Composer {
  #form = byId("composer");
  #text = byId("text");
  #send = byId("send");
  #stop = byId("stop");
  #attached = byId("attached");
  #notice = byId("notice");
  #files = [];
  #running = false;

  /** `on.send(text, attachments)`, `on.stop()`, `on.intent()` when the learner begins to write. */
  constructor(on) {
    const submit = async () => {
      const text = this.#text.value.trim();
      if (!text && !this.#files.length) return;
      const files = this.#files;
      this.clear();
      on.send(text, await Promise.all(files.map(encoded)));
    };
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit();
    });
    this.#text.addEventListener("keydown", (event) => {
      // While an input method composes, Enter belongs to it.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      submit();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#running) on.stop();
    });
    this.#stop.addEventListener("click", () => {
      on.stop();
      this.focus();
    });
    this.#text.addEventListener("input", () => {
      this.#fit();
      this.#show();
      on.intent();
    });
    this.#takeFiles();
  }

  focus() {
    this.#text.focus({ preventScroll: true });
  }

  clear() {
    this.#text.value = "";
    this.#files = [];
    this.#say("");
    this.#fit();
    this.#show();
  }

  /** Puts a text there to be sent again, unless something is being written. */
  offer(text) {
    if (!this.#text.value) this.#text.value = text;
    this.#fit();
    this.#show();
    this.focus();
  }

  running(running) {
    this.#running = running;
    this.#show();
  }

  #show() {
    const something = this.#text.value.trim() !== "" || this.#files.length > 0;
    this.#send.disabled = !something;
    this.#stop.hidden = !this.#running;
    this.#send.hidden = this.#running && !something;
    const chips = this.#files.map((file) =>
      element(
        "li",
        { class: "chip" },
        element("span", {}, file.name),
        element("small", {}, size(file.size)),
        element("button", { type: "button", "aria-label": `Remove ${file.name}`, onclick: () => this.#remove(file) }, "×"),
      ),
    );
    this.#attached.replaceChildren(...chips);
    this.#attached.hidden = chips.length === 0;
  }

  #fit() {
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight}px`;
  }

  #say(words) {
    this.#notice.textContent = words;
    this.#notice.hidden = !words;
  }

  #remove(file) {
    this.#files = this.#files.filter((other) => other !== file);
    this.#say("");
    this.#show();
    this.focus();
  }

  #add(files) {
    this.#say("");
    for (const file of files) {
      const total = this.#files.reduce((sum, other) => sum + other.size, file.size);
      if (this.#files.length === MAX_FILES) this.#say(`A message can carry ${MAX_FILES} files.`);
      else if (total > MAX_FILES_BYTES) this.#say(`${file.name} is too large: files may have ${size(MAX_FILES_BYTES)} together.`);
      else this.#files.push(file);
    }
    this.#show();
  }

  #takeFiles() {
    const picker = byId("files");
    byId("attach").addEventListener("click", () => picker.click());
    picker.addEventListener("change", () => {
      this.#add(picker.files);
      picker.value = "";
      this.focus();
    });
    this.#text.addEventListener("paste", (event) => {
      if (!event.clipboardData.files.length) return;
      event.preventDefault();
      this.#add(event.clipboardData.files);
    });
    const box = this.#form.querySelector(".writing");
    for (const name of ["dragover", "dragleave", "drop"]) {
      document.addEventListener(name, (event) => {
        event.preventDefault();
        box.classList.toggle("over", name === "dragover");
        if (name === "drop") this.#add(event.dataTransfer.files);
      });
    }
  }
}

/** A file as a message carries it. */
async function encoded(file) {
  const address = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  return {
    name: file.name,
    media_type: file.type || "application/octet-stream",
    data: address.slice(address.indexOf(",") + 1),
  };
}
