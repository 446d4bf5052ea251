// The face of the page: takes images in, asks the worker behind the door, and shows what it says.

import { answerPanel } from "./answer_view.js";
import { showCard } from "./card.js";
import { openDoor, Told } from "./door.js";
import { asCsv, manyTable, rowOf, tally } from "./many_view.js";
import { makeStage } from "./map_view.js";
import { breakable, labelAll, language, make, say, sayCount, speak } from "./texts.js";
import { asCanvas, thumbnail } from "./viewer.js";

const $ = (id) => document.getElementById(id);

/**
 * Starts the page.
 * @param data `{meta, texts: {language: table}, language}` as Python wrote it into the page; without a language the browser's
 *   first that there is a table of is spoken.
 * @param engine `{worker, load}`: the worker, and what gives a promise of `{model, wasm}` for it.
 */
export function startFace(data, engine) {
  const { meta, texts } = data;
  const door = openDoor(engine.worker);
  let items = [];
  let queue = [];
  let busy = false;
  let ready = null;
  let open = null; // {item, stage} that is looked at
  let held = null; // {item, image, canvas} that was answered alone, and will be looked at
  let numbers = 0;
  let pasted = 0; // without a name, since all were cleared
  let busyWith = () => "";

  // -- words ---------------------------------------------------------------------------------------------------------
  function speakNow(name) {
    speak(name, texts[name]);
    labelAll(document);
    const title = say("page.title");
    document.title = title;
    $("title").textContent = title;
    $("subtitle").textContent = say("page.tells", { classes: meta.classes.join(", ") });
    $("synthetic").hidden = !meta.synthetic;
    $("made").textContent = say("page.made", { version: meta.stillroom ?? "", name: meta.name, digest: meta.digest.slice(0, 12) });
    $("working-words").textContent = busyWith();
    for (const button of $("languages").children) button.setAttribute("aria-pressed", String(button.lang === name));
  }

  async function changeLanguage(name) {
    speakNow(name);
    show();
    const opened = await ready.then(() => true, () => false); // what went wrong is told already
    if (!opened) return;
    await door.ask({ do: "speak", language: name });
    for (const item of items) if (item.prediction) item.prediction = (await door.ask({ do: "word", prediction: item.prediction })).prediction;
    const drawn = open?.stage?.drawn();
    if (drawn) Object.assign(drawn, (await door.ask({ do: "trust", prediction: open.item.prediction, of: drawn.of, method: drawn.method, estimate: drawn.estimate })).trusted);
    show();
  }

  const tell = (words) => ($("live").textContent = words);

  // -- images in -----------------------------------------------------------------------------------------------------
  function add(files) {
    const list = [...files];
    if (!list.length) return;
    $("trouble").hidden = true;
    for (const file of list) {
      const item = { number: ++numbers, name: file.name || say("intake.pasted", { number: ++pasted }), file, frame: null };
      items.push(item);
      queue.push(item);
    }
    if (open && items.length > 1) leave();
    fill(true);
    show();
    work();
  }

  /** The place for images is large while there is none, and a line afterwards. */
  function fill(filled) {
    document.body.classList.toggle("filled", filled);
    $("clear").hidden = !filled;
    $("intake-title").dataset.t = filled ? "intake.more" : "intake.title";
    labelAll(document);
  }

  async function work() {
    if (busy) return;
    busy = true;
    try {
      working(() => say("working.opening"), null);
      await ready;
      while (queue.length) {
        const item = queue.shift();
        const at = { number: items.indexOf(item) + 1, count: items.length };
        working(() => (at.count === 1 ? say("working.one", { name: item.name }) : say("working.many", at)), (at.number - 1) / at.count);
        await answer(item);
      }
    } catch (error) {
      trouble(error);
    }
    busy = false;
    $("working").hidden = true;
    if (items.length === 1 && items[0].prediction) await look(items[0], false);
    else {
      release();
      show();
    }
    if (items.length) tell(items.length === 1 && items[0].prediction ? say("live.answer", { name: items[0].name, answer: items[0].prediction.answer }) : tally(items));
  }

  /** Reads a file and asks about each image in it: of one with several frames, each becomes an item of its own. */
  async function answer(item) {
    const { name } = item;
    const frame = (key, number, count, seconds) => working(() => sayCount(key, Math.max(1, Math.ceil(seconds)), { name, number, frames: count }), (number - 1) / count);
    let found;
    try {
      found = await read(item, { onProgress: (told) => frame("working.reading", told.read + 1, told.frames, told.seconds_left) });
    } catch (error) {
      if (!items.includes(item)) return;
      item.error = () => reason(error);
      refresh(item);
      return;
    }
    const frames = found.map((image, n) => (n === 0 ? item : { number: ++numbers, file: item.file }));
    if (found.length > 1) {
      frames.forEach((one, n) => Object.assign(one, { name: `${name}#${found[n].frame}`, frame: found[n].frame }));
      if (items.includes(item)) items.splice(items.indexOf(item) + 1, 0, ...frames.slice(1));
      show();
    }
    const began = performance.now();
    for (const [n, one] of frames.entries()) {
      if (n) frame("working.answering", n + 1, frames.length, ((performance.now() - began) / 1000 / n) * (frames.length - n));
      if (found[n].refused) (one.error = () => say(found[n].refused.key, found[n].refused.values)), refresh(one);
      else {
        const canvas = items.includes(one) ? await answerImage(one, found[n]) : null;
        if (canvas && items.length === 1 && one.prediction) held = { item: one, image: found[n].image, canvas };
        else door.ask({ do: "forget", image: found[n].image });
      }
    }
  }

  /** Asks about one image, and gives its picture. */
  async function answerImage(item, image) {
    const canvas = asCanvas(image.preview);
    item.size = `${image.width} × ${image.height}`;
    item.thumb = thumbnail(canvas);
    try {
      item.prediction = (await door.ask({ do: "predict", image: image.image })).prediction;
      if (item.prediction.error) {
        const words = item.prediction.error;
        [item.prediction, item.error] = [null, () => words];
      }
    } catch (error) {
      item.error = () => reason(error);
    }
    refresh(item);
    return canvas;
  }

  /** The images of an item's file, or of one that is a frame that frame alone. */
  async function read({ file, name, frame }, { onProgress = null } = {}) {
    const bytes = await file.arrayBuffer().catch(() => {
      throw new Told("refused.gone", "refused.gone"); // a folder, a file that was moved, or one larger than memory
    });
    return (await door.ask({ do: "read", name, bytes, frame }, { give: [bytes], onProgress })).images;
  }

  const reason = (error) => (error.key ? say(error.key, error.values) : error.message);

  function working(words, share) {
    busyWith = words;
    $("working").hidden = false;
    $("working-words").textContent = words();
    $("stop").hidden = queue.length === 0;
    if (share === null) $("working-bar").removeAttribute("value");
    else $("working-bar").value = share;
  }

  function trouble(error) {
    $("trouble").hidden = false;
    const hint = error.opening && error.key !== "trouble.damaged" ? make("p", {}, say("trouble.opening")) : "";
    $("trouble").replaceChildren(make("p", {}, make("strong", {}, say("trouble.title"))), make("p", {}, reason(error)), hint);
    tell(`${say("trouble.title")} ${reason(error)}`);
  }

  function clear() {
    leave();
    [items, queue, pasted] = [[], [], 0];
    fill(false);
    $("trouble").hidden = true;
    show();
    tell(say("live.cleared"));
    $("choose").focus();
  }

  function stopWaiting() {
    for (const item of queue) item.stopped = true;
    queue = [];
    show();
  }

  // -- what is shown -------------------------------------------------------------------------------------------------
  function show() {
    const alone = items.length === 1 && (items[0].error || items[0].stopped);
    $("many").hidden = open !== null || !(items.length > 1 || alone);
    $("one").hidden = open === null;
    if (open !== null) showOne();
    else if (!$("many").hidden) showMany();
  }

  function showMany() {
    const save = make("button", { type: "button", id: "save", onclick: saveCsv }, say("many.save"));
    const print = make("button", { type: "button", onclick: () => window.print() }, say("many.print"));
    const bar = make("div", { class: "bar-of-tools" }, make("div", {}, make("div", {}, make("h2", { id: "many-title", tabindex: "-1" }, sayCount("many.count", items.length)), make("p", { class: "quiet", id: "tally" }, tally(items)))), items.some((item) => item.prediction) ? make("div", {}, save, print) : "");
    $("many").className = "sheet";
    $("many").replaceChildren(bar, manyTable(items, (item) => look(item, true)), paper(null));
  }

  function refresh(item) {
    const row = $("many").querySelector(`[data-item="${item.number}"]`);
    if (row) row.replaceWith(rowOf(item, (one) => look(one, true)));
    if ($("tally") && $("save")) $("tally").textContent = tally(items);
    else if (!$("many").hidden) showMany();
  }

  /** Opens one image. One of many is read again, for nothing but answers and small pictures is kept of these. */
  async function look(item, byHand) {
    leave();
    const looking = (open = { item, stage: null });
    try {
      if (held?.item === item) {
        Object.assign(looking, { image: held.image, canvas: held.canvas });
        held = null;
      } else {
        release();
        working(() => say("working.one", { name: item.name }), null);
        const [image] = await read(item);
        if (open !== looking) return door.ask({ do: "forget", image: image.image });
        Object.assign(looking, { image: image.image, canvas: asCanvas(image.preview) });
      }
    } catch (error) {
      open = null;
      trouble(error);
    } finally {
      $("working").hidden = !busy;
    }
    show();
    if (byHand && open) $("one-title").focus();
    return null;
  }

  function release() {
    if (held) door.ask({ do: "forget", image: held.image });
    held = null;
  }

  function leave() {
    if (!open) return;
    open.stage?.close();
    if (open.image !== undefined) door.ask({ do: "forget", image: open.image });
    open = null;
  }

  function back() {
    const { item } = open;
    leave();
    show();
    $("many").querySelector(`[data-item="${item.number}"] button`)?.focus();
  }

  function showOne() {
    const { item, canvas, image } = open;
    if (!canvas) return;
    const kept = open.stage?.kept();
    open.stage?.close();
    const title = make("h2", { id: "one-title", tabindex: "-1", class: `words-${item.prediction.foreign ? "foreign" : ""}` }, breakable(item.prediction.answer));
    const print = make("p", { class: "print" }, make("button", { type: "button", onclick: () => window.print() }, say("one.print")));
    const panel = answerPanel(item.prediction, meta, title, `${item.name} · ${item.size}`, print);
    const draw = (of, method, onProgress) => door.ask({ do: "explain", image, of, method }, { onProgress });
    const stage = makeStage(canvas, item.prediction, meta, { draw, cancel: door.cancel, tell, name: item.name });
    open.stage = stage;
    $("one").replaceChildren(steps(item), make("div", { class: "desk" }, panel, stage.node), paper(item));
    if (kept) stage.resume(kept);
    else if (item.prediction.foreign) stage.offer("map.of_foreign");
    else stage.begin();
  }

  function steps(item) {
    const answered = items.filter((one) => one.prediction);
    const at = answered.indexOf(item);
    const place = { number: items.indexOf(item) + 1, count: items.length };
    const go = (n, key) => make("button", { type: "button", disabled: !answered[n], onclick: () => look(answered[n], true) }, say(key));
    if (items.length < 2) return "";
    const all = make("button", { type: "button", id: "back", onclick: back }, say("one.back"));
    return make("div", { class: "bar-of-tools" }, make("div", {}, all, go(at - 1, "one.before"), go(at + 1, "one.after"), make("span", { class: "quiet" }, say("one.place", place))));
  }

  /** What paper says beside the answer: when, which file, which model. */
  function paper(item) {
    const list = [["paper.date", new Date().toLocaleString(language(), { dateStyle: "long", timeStyle: "short" })]];
    if (item) list.push(["paper.file", item.name]);
    list.push(["paper.model", meta.name], ["paper.digest", meta.digest]);
    return make("dl", { class: "paper" }, list.flatMap(([key, value]) => [make("dt", {}, say(key)), make("dd", {}, value)]));
  }

  function saveCsv() {
    const text = `\ufeff${asCsv(items, meta.classes, meta.digest)}`;
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: say("many.file") });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    tell(say("live.saved"));
  }

  // -- wiring --------------------------------------------------------------------------------------------------------
  $("choose").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => {
    add($("files").files);
    $("files").value = "";
  });
  $("clear").addEventListener("click", clear);
  $("stop").addEventListener("click", stopWaiting);
  $("show-card").addEventListener("click", () => showCard($("card"), meta));
  document.addEventListener("paste", (event) => add(event.clipboardData?.files ?? []));
  let over = 0;
  const dropping = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragenter", () => dropping(++over > 0));
  document.addEventListener("dragleave", () => dropping(--over > 0));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dropping((over = 0) > 0);
    add(event.dataTransfer.files);
  });
  const names = Object.keys(texts);
  const first = data.language ?? navigator.languages.map((tag) => tag.split("-")[0]).find((name) => name in texts) ?? names[0];
  $("languages").hidden = names.length < 2;
  $("languages").append(...names.map((name) => make("button", { type: "button", lang: name, onclick: () => changeLanguage(name) }, texts[name]["page.own_name"])));
  speakNow(first);
  document.getElementById("damaged").remove();
  document.body.classList.remove("asleep");

  ready = engine.load().then(({ model, wasm }) => door.ask({ do: "open", model, wasm, meta: { ...meta, language: first } }, { give: [model, wasm] }));
  ready.catch((error) => (error.opening = true)); // said with what to do
  ready.then(() => (document.body.dataset.ready = "yes"), trouble);
}
