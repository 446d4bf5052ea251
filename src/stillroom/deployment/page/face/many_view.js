// Many images: a table with thumbnails, and the same as CSV.

import { kindOf, ranked } from "./answer_view.js";
import { breakable, decimalMark, make, percent, say, sayCount } from "./texts.js";

const COLUMNS = ["image", "answer", "class", "probability"];

/** The table of all images. `open(item)` is called for the one that is chosen. */
export function manyTable(items, open) {
  const heads = [make("th", { scope: "col", class: "thumb" }, make("span", { class: "hidden" }, say("many.picture")))];
  for (const name of COLUMNS) heads.push(make("th", { scope: "col", role: "columnheader", class: name === "probability" ? "number" : null }, say(`many.${name}`)));
  heads.push(make("td", { role: "cell", class: "length" }));
  const rows = items.map((item) => rowOf(item, open));
  return make("table", { role: "table" }, make("caption", { class: "hidden" }, say("many.title")), make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, heads)), make("tbody", { role: "rowgroup" }, rows));
}

function cell(name, ...children) {
  return make("td", { role: "cell", class: name }, children);
}

/** One row; made anew when its image is answered. */
export function rowOf(item, open) {
  const row = make("tr", { role: "row", "data-item": item.number });
  row.append(cell("thumb", item.thumb ?? make("span")));
  const { prediction } = item;
  if (!prediction) {
    const words = make("td", { role: "cell", class: `error ${item.error ? "wrong" : "quiet"}`, colspan: 4 }, unanswered(item));
    row.append(cell("name", item.name), words);
    return row;
  }
  const kind = kindOf(prediction);
  const most = mostProbable(prediction);
  const link = make("button", { type: "button", class: "link", onclick: () => open(item) }, item.name);
  const words = make("span", { class: `answer words-${kind}` }, breakable(prediction.answer));
  const extras = [prediction.flags, prediction.note].filter(Boolean).map((text) => make("span", { class: "extra" }, text));
  row.append(cell("name", link), cell("answer", words, extras));
  if (!most) {
    row.append(cell("of quiet", "–"), cell("number quiet", "–"), cell("length"));
    return row;
  }
  const [name, share] = most;
  const fill = make("i", { class: "decided" });
  fill.style.width = `${100 * share}%`;
  row.append(cell(name === prediction.answer ? "of same" : "of", breakable(name)), cell("number", percent(share)), cell("length", make("span", { class: "gauge", "aria-hidden": "true" }, fill)));
  return row;
}

/** The most probable class and its probability; null for an image of another kind, of which they say nothing. */
function mostProbable(prediction) {
  return prediction.foreign ? null : ranked(prediction)[0];
}

/** Why an image has no answer. */
function unanswered({ error, stopped }) {
  return error ? error() : say(stopped ? "many.stopped" : "many.waiting");
}

/** How many images got which answer, in a sentence. */
export function tally(items) {
  const counts = { one: 0, several: 0, refused: 0, unread: 0, stopped: 0, waiting: 0 };
  for (const { prediction, error, stopped } of items) {
    if (!prediction) counts[error ? "unread" : stopped ? "stopped" : "waiting"] += 1;
    else if (prediction.foreign) counts.refused += 1;
    else counts[["set", "any", "perhaps"].includes(kindOf(prediction)) ? "several" : "one"] += 1;
  }
  const parts = Object.entries(counts).filter(([, count]) => count).map(([key, count]) => sayCount(`tally.${key}`, count));
  return parts.join(" · ");
}

/**
 * The answers as CSV: the columns of `stillroom predict`, what was flagged, noted or wrong, and every class's probability.
 * Where numbers are written with a comma it stands between semicolons, as spreadsheets of that language read it.
 */
export function asCsv(items, classes, digest) {
  const head = [...COLUMNS, "flags", "note", "error"].map((key) => say(`many.${key}`));
  const mark = decimalMark();
  const separator = mark === "," ? ";" : ",";
  const rows = items.map((item) => {
    const { name, prediction } = item;
    if (!prediction) return [name, "", "", "", "", "", unanswered(item), ...classes.map(() => ""), digest];
    const [most, share] = mostProbable(prediction) ?? ["", ""];
    return [name, prediction.answer, most, share, prediction.flags ?? "", prediction.note ?? "", "", ...classes.map((one) => prediction.probabilities[one]), digest];
  });
  return [[...head, ...classes, say("many.model")], ...rows].map((row) => row.map((value) => field(value, mark)).join(separator)).join("\r\n") + "\r\n";
}

function field(value, mark) {
  if (typeof value === "number") return String(value).replace(".", mark);
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value; // a spreadsheet would take it for a formula
  return /[",;\r\n']/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
