// Words of the page: one table per language, looked up by key; what stands in {braces} is filled in.

let words = {};
let tongue = "en";
const shares = {};

/** Speak this language from now on. `table` is one of texts/*.json. */
export function speak(language, table) {
  words = table;
  tongue = language;
}

export function language() {
  return tongue;
}

/** The text of a key. An unknown key is a mistake of ours, which tests find: it is shown by its name. */
export function say(key, values = {}) {
  const text = words[key];
  return text === undefined ? key : text.replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
}

/** A text of which there is one for 1 (`key.one`) and one for any other number (`key.other`). */
export function sayCount(key, count, values = {}) {
  return say(count === 1 ? `${key}.one` : `${key}.other`, { count: decimal(count), ...values });
}

/** 0.7412 as 74.1%, rounded as Python rounds. */
export function percent(share, digits = 1) {
  const key = `${tongue} ${digits}`;
  shares[key] ??= new Intl.NumberFormat(tongue, { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits, roundingMode: "halfEven" });
  return shares[key].format(share);
}

export function decimal(value, digits = 0) {
  return value.toLocaleString(tongue, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** What stands before the decimals of a number. */
export function decimalMark() {
  return decimal(0.5, 1)[1];
}

/** Writes the words of everything in the page that names its key in `data-t` (text) or `data-label` (aria-label). */
export function labelAll(root) {
  root.documentElement.lang = tongue;
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = say(node.dataset.t);
  for (const node of root.querySelectorAll("[data-label]")) node.setAttribute("aria-label", say(node.dataset.label));
}

/** A text that may break after underscores, as names of classes do not. */
export function breakable(text) {
  return text.split(/(?<=_)/).flatMap((part, n) => (n ? [make("wbr"), part] : [part]));
}

/** An element with attributes and children; text is only ever set as text. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
