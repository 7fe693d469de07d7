// A little Markdown, as elements and text nodes: paragraphs, code, lists, bold, emphasis,
// headings as bold lines. What it does not know stays as it was written.

import { element } from "./dom.js";

const FENCE = /^\s{0,3}(```|~~~)\s*([\w+#-]*)/;
const BULLET = /^(\s*)[-*•]\s+(.*)$/;
const NUMBER = /^(\s*)(\d{1,9})[.)]\s+(.*)$/;
const HEADING = /^#{1,6}\s+(.*?)\s*#*$/;

/** Puts `text` into `into`, in the place of what is there. */
export function render(text, into) {
  into.replaceChildren(...blocks(text.replace(/\r\n?/g, "\n").split("\n")));
}

function blocks(lines) {
  const made = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    if (fence) {
      const from = ++at;
      while (at < lines.length && !lines[at].trimStart().startsWith(fence[1])) at++;
      made.push(code(lines.slice(from, at).join("\n"), fence[2]));
      at++;
    } else if (BULLET.test(line) || NUMBER.test(line)) {
      const from = at;
      while (at < lines.length && belongsToList(lines, at)) at++;
      made.push(list(lines.slice(from, at)));
    } else if (line.trim() === "") {
      at++;
    } else if (HEADING.test(line)) {
      made.push(element("p", { class: "heading" }, ...inline(HEADING.exec(line)[1])));
      at++;
    } else {
      const from = at;
      while (at < lines.length && isPlain(lines[at])) at++;
      made.push(paragraph(lines.slice(from, at)));
    }
  }
  return made;
}

function isPlain(line) {
  return line.trim() !== "" && !FENCE.test(line) && !BULLET.test(line) && !NUMBER.test(line) && !HEADING.test(line);
}

function belongsToList(lines, at) {
  const line = lines[at];
  if (BULLET.test(line) || NUMBER.test(line)) return true;
  if (line.trim() !== "") return /^\s{2,}\S/.test(line);
  const next = lines[at + 1] ?? "";
  return BULLET.test(next) || NUMBER.test(next);
}

function paragraph(lines) {
  const made = element("p");
  lines.forEach((line, index) => {
    if (index) made.append(element("br"));
    made.append(...inline(line.trim()));
  });
  return made;
}

function code(text, language) {
  return element("pre", { tabindex: "0", "aria-label": language ? `Code, ${language}` : "Code" }, element("code", {}, text));
}

function list(lines) {
  const first = NUMBER.exec(lines[0]);
  const made = first ? element("ol", { start: first[2] === "1" ? null : first[2] }) : element("ul");
  const depth = lines[0].match(/^\s*/)[0].length;
  let nested = [];
  const close = () => {
    if (nested.length && made.lastChild) made.lastChild.append(list(nested));
    nested = [];
  };
  for (const line of lines) {
    if (line.trim() === "") continue;
    const item = BULLET.exec(line) ?? NUMBER.exec(line);
    if (item && item[1].length > depth + 1) {
      nested.push(line);
    } else if (item) {
      close();
      made.append(element("li", {}, ...inline(item.at(-1))));
    } else if (nested.length) {
      nested.push(line);
    } else {
      made.lastChild.append(element("br"), ...inline(line.trim()));
    }
  }
  close();
  return made;
}

// A star with white space or a letter on the wrong side is a multiplication, not emphasis.
const PART = /(`[^`\n]+`|\*\*[^*\n]+\*\*|__[^_\n]+__|(?<![\w*])\*(?=\S)[^*\n]+(?<=\S)\*(?![\w*]))/;

/** Code, bold and emphasis within a line. */
function inline(text) {
  return text
    .split(PART)
    .map((part, index) => {
      // With one group, every second part is a match.
      if (index % 2 === 0) return document.createTextNode(part);
      if (part.startsWith("`")) return element("code", {}, part.slice(1, -1));
      if (/^(\*\*|__)/.test(part)) return element("strong", {}, part.slice(2, -2));
      return element("em", {}, part.slice(1, -1));
    });
}
