// What the model says of one image: the answer in its words, bars, thresholds, notes, and why an image was refused.

import { decimal, make, percent, say, sayCount } from "./texts.js";

const SHOWN = 8; // bars that are seen at once

/** Which of the answers it is: `foreign`, `set`, `any`, `perhaps`, `none` or `one`. */
export function kindOf(prediction) {
  if (prediction.foreign) return "foreign";
  if (prediction.unsure?.length) return "perhaps";
  const classes = Object.keys(prediction.probabilities).length;
  if (prediction.possible && prediction.possible.length > 1 && prediction.decision.length === 1) {
    return prediction.possible.length === classes && classes > 2 ? "any" : "set";
  }
  return prediction.decision.length ? "one" : "none";
}

/** Classes with their probability, the most probable first. */
export function ranked(prediction) {
  return Object.entries(prediction.probabilities).sort((one, other) => other[1] - one[1]);
}

/** The panel of an answer. `title` is its heading, `meta` what the model says of itself. */
export function answerPanel(prediction, meta, title, file, foot) {
  const kind = kindOf(prediction);
  const inside = [
    make("div", {}, make("p", { class: "file" }, file), title, make("p", {}, meaning(kind, prediction, meta))),
  ];
  if (kind === "foreign") inside.push(whyNot(prediction, meta));
  else inside.push(make("div", {}, make("h3", {}, say("shares.title")), bars(prediction)), thresholds(prediction, meta));
  if (prediction.note) inside.push(make("p", { class: "notice" }, `${prediction.note}.`));
  if (kind === "foreign") {
    inside.push(make("details", {}, make("summary", {}, say("why.shares")), make("p", { class: "quiet" }, say("why.shares_more")), bars(prediction)));
  }
  return make("div", { class: "said sheet" }, inside, foot);
}

function meaning(kind, prediction, meta) {
  if (kind === "foreign") return say("meaning.foreign");
  if (!meta.conformal) return say(kind === "none" ? "meaning.none" : "meaning.no_rule");
  const coverage = percent(meta.conformal.coverage, 0);
  return say(kind === "one" && !meta.exclusive ? "meaning.labels" : `meaning.${kind}`, { coverage });
}

function bars(prediction) {
  const rows = ranked(prediction).map(([name, share]) => {
    const decided = !prediction.foreign && prediction.decision.includes(name);
    const fill = make("i", { class: decided ? "decided" : null });
    fill.style.width = `${100 * share}%`;
    return make("li", { class: decided ? "decided" : null }, make("span", {}, name), " ", make("span", { class: "share" }, percent(share)), make("span", { class: "gauge", "aria-hidden": "true" }, fill));
  });
  const list = (some) => make("ul", { class: "shares" }, some);
  if (rows.length <= SHOWN + 2) return list(rows);
  const rest = rows.slice(SHOWN);
  return make("div", {}, list(rows.slice(0, SHOWN)), make("details", {}, make("summary", {}, sayCount("shares.rest", rest.length)), list(rest)));
}

function thresholds(prediction, meta) {
  if (!meta.points?.length) return null;
  const rows = meta.points.map((point) => {
    const name = `${point.of} at ${point.for} ${point.wanted}`;
    const on = prediction.flagged[name];
    const wanted = say(`points.${point.for}`, { share: decimal(point.wanted, 2) });
    const less = point.promised < point.wanted - 1e-9 ? ` ${say("points.less", { share: decimal(Math.floor(100 * point.promised + 1e-9) / 100, 2) })}` : "";
    const from = say("points.from", { threshold: percent(point.threshold) });
    return make("li", {}, make("span", {}, point.of), " ", make("span", { class: on ? "on" : "quiet" }, say(on ? "points.on" : "points.off")), " ", make("span", { class: "quiet" }, `${from}, ${wanted}${less}`));
  });
  return make("div", {}, make("h3", {}, say("points.title")), make("ul", { class: "points" }, rows));
}

function whyNot(prediction, meta) {
  const [score, limit] = [prediction.foreign_score, meta.foreign.threshold];
  const { refused, refusals } = meta.foreign;
  const chance = { refusals: percent(refusals, 0), measured: percent(refused ?? 0) };
  const far = Math.max(score, limit) * 1.08;
  const fill = make("i");
  const mark = make("b");
  const limitWords = make("span", { class: "limit" }, say("why.limit", { limit: decimal(limit, 1) }));
  fill.style.width = `${Math.max(2, Math.min(100, (100 * score) / far))}%`;
  mark.style.left = limitWords.style.left = `${Math.max(0, Math.min(100, (100 * limit) / far))}%`;
  const scoreWords = make("span", { class: "here-it-is" }, say("why.score", { score: decimal(score, 1) }));
  return make("div", {}, make("h3", {}, say("why.title")),
    make("p", {}, say("why.words", { score: decimal(score, 1), limit: decimal(limit, 1) }), " ", say(refused === null || refused === undefined ? "why.wanted" : "why.measured", chance)),
    make("div", { class: "ruler", "aria-hidden": "true" }, fill, mark, limitWords, scoreWords),
    make("p", {}, say("why.causes")));
}
