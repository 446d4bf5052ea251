// The stage: an image, the heat map of a class as it is being drawn, how far that can be trusted, and what changes the view.

import { ranked } from "./answer_view.js";
import { palette } from "./heat.js";
import { decimal, make, percent, say, sayCount } from "./texts.js";
import { makeViewer } from "./viewer.js";

const STYLES = { both: [true, true], fill: [true, false], lines: [false, true] };
const VERDICTS = { faithful: "good", "not faithful": "bad" };
const chosen = { style: "both", opacity: null, beside: false };

/** The stage of an image. `draw(of, method, onProgress)` asks the worker and gives a promise with `id`; `cancel(id)` ends it. */
export function makeStage(image, prediction, meta, { draw, cancel, tell, name }) {
  chosen.opacity ??= meta.heat.strongest;
  const look = { opacity: chosen.opacity, beside: chosen.beside, colours: palette(meta.heat) };
  styled();
  const viewer = makeViewer(image, meta.fit, look, say("map.image", { name }));
  const status = make("div", { class: "drawing", tabindex: "-1" });
  const verdict = make("div");
  const legend = make("p", { class: "legend", hidden: true });
  let running = null;
  let last = null;
  let first = null; // what was estimated, while it is drawn more fully
  let offered = null; // key of what is said where a map is offered
  let of = ranked(prediction)[0][0];

  function styled() {
    [look.fill, look.lines] = STYLES[chosen.style];
  }

  const classes = make("select", { id: "map-of", onchange: () => begin(classes.value) }, ranked(prediction).map(([one, share]) => make("option", { value: one }, prediction.foreign ? one : `${one} (${percent(share)})`)));
  const styles = make("select", { id: "map-style", onchange: restyle }, Object.keys(STYLES).map((key) => make("option", { value: key, selected: key === chosen.style }, say(`map.style_${key}`))));
  const shown = make("output", { for: "map-opacity" }, percent(look.opacity, 0));
  const opacity = make("input", { id: "map-opacity", type: "range", min: 0, max: 100, value: Math.round(100 * look.opacity), oninput: fade });
  const beside = make("button", { type: "button", "aria-pressed": String(chosen.beside), onclick: setBeside }, say("map.beside"));
  const zoom = [["+", "nearer"], ["−", "farther"], ["1:1", "whole"]].map(([sign, deed]) => make("button", { type: "button", "aria-label": say(`map.${deed}`), title: say(`map.${deed}`), onclick: viewer[deed] }, deed === "whole" ? say("map.fit") : sign));
  const mapped = make("div", { class: "dials" },
    make("label", { for: "map-of" }, say("map.of"), classes), make("label", { for: "map-style" }, say("map.style"), styles), make("label", { for: "map-opacity" }, say("map.opacity"), opacity, shown), beside);
  const head = make("div", { class: "stage-top" }, make("h3", {}, say("map.title")), make("span", { class: "zoom" }, zoom));
  const node = make("div", { class: "stage sheet" }, head, viewer.node, make("div", { class: "beside-map" }, status, legend, verdict, mapped));
  node.classList.toggle("wide", chosen.beside);

  function restyle() {
    chosen.style = styles.value;
    styled();
    viewer.draw();
    drawLegend();
  }

  function fade() {
    look.opacity = chosen.opacity = opacity.value / 100;
    shown.value = percent(look.opacity, 0);
    viewer.draw();
    drawLegend();
  }

  function setBeside() {
    look.beside = chosen.beside = !chosen.beside;
    beside.setAttribute("aria-pressed", String(chosen.beside));
    node.classList.toggle("wide", chosen.beside);
    viewer.draw();
  }

  function drawLegend() {
    legend.hidden = !last || last.empty === true;
    if (legend.hidden) return;
    const strip = make("canvas", { width: 128, height: 1, "aria-hidden": "true" });
    const brush = strip.getContext("2d");
    look.colours.forEach(([red, green, blue], level) => {
      brush.fillStyle = `rgb(${red} ${green} ${blue} / ${(look.opacity * level) / 255})`;
      brush.fillRect(level / 2, 0, 1, 1);
    });
    const parts = look.fill ? [say("map.less"), strip, say("map.more")] : [];
    if (look.lines) parts.push(say("map.lines"));
    legend.replaceChildren(...parts.map((part) => make("span", {}, part)));
  }

  /** What is said of the map and can be done. The focus of a button that goes is its successor's; with none, the words'. */
  function state(...parts) {
    const held = status.contains(document.activeElement);
    status.replaceChildren(...parts);
    if (held) (status.querySelector("button") ?? status).focus();
  }

  function offer(key, words = key && say(key)) {
    offered = key;
    const start = make("button", { type: "button", id: "draw", onclick: () => begin(classes.value) }, say("map.draw"));
    state(...(words ? [make("span", { class: "quiet" }, words)] : []), start);
  }

  function stop() {
    if (running === null) return;
    cancel(running);
    running = null;
  }

  function drop() {
    last = null;
    viewer.drop();
    drawLegend();
  }

  /** Draws the map of a class; where it is drawn more fully, `estimate` is what there was, and stays until there is more. */
  function begin(name, estimate = null) {
    stop();
    [of, first] = [name, estimate];
    if (first) last = first;
    else drop();
    drawLegend();
    verdict.replaceChildren();
    verdict.className = "";
    const floor = first ? first.estimate.asked / first.fuller.channels : 0;
    const left = make("span", { class: "quiet" }, say("map.drawing", { of }));
    const bar = make("progress", { "aria-label": say("map.drawing", { of }), max: 1, value: 0 });
    const halt = make("button", { type: "button", id: "cancel", onclick: () => end("map.cancelled") }, say("map.cancel"));
    state(left, bar, halt);
    const end = (key, words = say(key)) => {
      stop();
      if (first) show(first);
      else {
        drop(); // of an unfinished map nothing is known
        offer(key, words);
      }
      tell(words);
    };
    const reply = draw(name, first?.fuller.method, ({ progress, seconds_left: seconds, map }) => {
      if (running !== reply.id) return;
      bar.value = progress;
      if (Number.isFinite(seconds)) left.textContent = sayCount("map.left", Math.max(1, Math.ceil(seconds)), { of });
      if (map && progress >= floor) viewer.show((last = { map }).map);
      drawLegend();
    });
    running = reply.id;
    reply.then((done) => {
      if (running !== reply.id) return;
      if (!done.fuller?.at_once) return finish(done);
      viewer.show(done.map, done.original);
      begin(of, { ...done, of, fuller: { ...done.fuller, at_once: false } });
    }, (error) => running === reply.id && end(null, error.message));
  }

  function finish(done) {
    running = first = null;
    last = { ...done, of };
    viewer.show(done.map, done.original);
    drawLegend();
    const { estimate, fuller } = done;
    const words = estimate ? say("map.estimated", { of, asked: decimal(estimate.asked), channels: decimal(estimate.channels) }) : say("map.done", { of });
    const parts = [make("span", { class: "quiet" }, words)];
    if (done.empty) parts.unshift(make("span", {}, say("map.empty")));
    if (fuller) parts.push(make("button", { type: "button", id: "fuller", onclick: () => begin(of, last) }, sayCount("map.fuller", Math.max(1, Math.ceil(fuller.seconds)), { channels: decimal(fuller.channels) })));
    state(...parts);
    const label = say(`verdict.${{ faithful: "faithful", "not faithful": "not_faithful", "not shown: too few images": "not_shown" }[done.verdict] ?? "not_tested"}`);
    verdict.className = `notice ${VERDICTS[done.verdict] ?? ""}`;
    verdict.replaceChildren(make("p", {}, make("strong", {}, label)), make("p", { lang: done.statement.includes(meta.explanation?.statement) ? "en" : null }, done.statement), make("p", { class: "quiet" }, say("verdict.what")));
    tell(`${words} ${label}. ${done.statement}`);
  }

  /** Shows a map that was drawn before. */
  function show(done) {
    of = classes.value = done.of;
    finish(done);
  }

  /** Goes on where the stage before it was, of the same image in another language. */
  function resume(kept) {
    of = classes.value = kept.of;
    if (kept.drawing) {
      if (kept.first) viewer.show(kept.first.map, kept.first.original);
      begin(of, kept.first);
    } else if (kept.done) show(kept.done);
    else {
      offer(kept.offered);
      if (kept.offered) tell(say(kept.offered));
    }
  }

  const done = () => (last?.done ? last : null);
  return {
    node, resume, offer, begin: () => begin(of), close: () => (stop(), viewer.close()),
    drawn: () => first ?? done(), kept: () => ({ of, first, offered, done: done(), drawing: running !== null }),
  };
}
