// The model card behind a button: facts of the file, and MODEL_CARD.md of the run where it was there.

import { make, percent, say } from "./texts.js";

/** Fills and opens the dialog. */
export function showCard(dialog, meta) {
  const close = make("button", { type: "button", onclick: () => dialog.close() }, say("card.close"));
  const device = make("p", { class: "device" }, make("strong", {}, say("standing.device")), " ", say("standing.research"));
  const synthetic = meta.synthetic ? make("p", { class: "device" }, make("strong", {}, say("standing.synthetic"))) : null;
  const top = make("div", { class: "card-top" }, make("div", {}, make("h2", { id: "card-title" }, say("card.title")), device, synthetic), close);
  const body = make("div", { class: "card-body", tabindex: "0", role: "region", "aria-labelledby": "card-title" });
  body.append(facts(meta), make("p", { class: "quiet" }, say("card.here")));
  if (meta.card) body.append(make("div", { lang: "en", class: "card-text" }, ...markdown(meta.card)));
  if (meta.licences) body.append(make("details", {}, make("summary", {}, say("card.licences")), make("pre", {}, meta.licences)));
  dialog.replaceChildren(top, body);
  dialog.showModal();
}

function facts(meta) {
  const list = [["card.name", meta.name], ["card.classes", meta.classes.join(", ")]];
  if (meta.details?.data) list.push(["card.data", meta.details.data]);
  list.push(["card.input", say(meta.channels === 1 ? "card.grey" : "card.colour", { size: meta.size })]);
  if (meta.conformal) list.push(["card.coverage", percent(meta.conformal.coverage, 0)]);
  if (meta.explanation?.statement) list.push(["card.maps", meta.explanation.statement]);
  list.push(["card.digest", meta.digest]);
  return make("dl", { class: "facts" }, list.flatMap(([key, value]) => [make("dt", {}, say(key)), make("dd", {}, value)]));
}

/** The part of Markdown that a model card is written in, as elements: headings, lists, tables, paragraphs, bold and code. */
export function markdown(text) {
  const nodes = [];
  let lines = [];
  const flush = () => {
    if (lines.length) nodes.push(block(lines));
    lines = [];
  };
  for (const line of text.split("\n")) {
    if (!line.trim()) flush();
    else {
      const starts = /^#{1,6} /.test(line) || (/^- /.test(line) && !/^\s*- /.test(lines[0] ?? "- "));
      if (starts) flush();
      lines.push(line);
      if (/^#{1,6} /.test(line)) flush();
    }
  }
  flush();
  return nodes;
}

function block(lines) {
  const heading = /^(#{1,6}) (.*)$/.exec(lines[0]);
  if (heading) return make(heading[1].length > 2 ? "h4" : "h3", {}, inline(heading[2]));
  if (/^\s*- /.test(lines[0])) {
    const points = [];
    for (const line of lines) {
      const point = /^(\s*)- (.*)$/.exec(line);
      if (point) points.push(point[2]);
      else points[points.length - 1] += ` ${line.trim()}`;
    }
    return make("ul", {}, points.map((point) => make("li", {}, inline(point))));
  }
  if (lines[0].startsWith("|") && lines.length > 1) {
    const cells = (line) => line.replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((one) => inline(one.trim()));
    const head = make("tr", {}, cells(lines[0]).map((one) => make("th", { scope: "col" }, one)));
    const rows = lines.slice(2).map((line) => make("tr", {}, cells(line).map((one) => make("td", {}, one))));
    return make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": lines[0].replace(/\|/g, " ").trim() || say("card.table") }, make("table", {}, make("thead", {}, head), make("tbody", {}, rows)));
  }
  return make("p", {}, inline(lines.join(" ")));
}

function inline(text) {
  const parts = [];
  const pattern = /\*\*(.+?)\*\*|`([^`]+)`|\[([^\]]*)\]\([^)]*\)/g;
  let from = 0;
  for (const found of text.matchAll(pattern)) {
    parts.push(plain(text.slice(from, found.index)));
    const [, bold, code, link] = found;
    parts.push(bold !== undefined ? make("strong", {}, plain(bold)) : code !== undefined ? make("code", {}, code) : plain(link));
    from = found.index + found[0].length;
  }
  parts.push(plain(text.slice(from)));
  return parts;
}

function plain(text) {
  const names = { "&lt;": "<", "&gt;": ">", "&amp;": "&" };
  return text.replace(/\\([^\w\s])/g, "$1").replace(/\\_/g, "_").replace(/&(?:lt|gt|amp);/g, (name) => names[name]);
}
