// The engine's one door, a worker: messages in, messages out, as page/__init__.py describes them.
import { answerOf } from "./answer.js";
import { crewFor, hand, shared } from "./crew.js";
import { decode } from "./decode.js";
import { enlargement, stretched } from "./maps.js";
import { ask, openNetwork } from "./network.js";
import { clipped, onOriginal, prepare, preview } from "./prepare.js";
import { Refused } from "./refused.js";
import { rise } from "./rise.js";
import { askedFor, scoreCam } from "./score_cam.js";
import { noteInWords, trust, worded } from "./words.js";

const LONGEST_PREVIEW = 2048; // pixels a side
const MANY = 8; // frames of a file; of more, previews are small
const SMALL_PREVIEW = 512;
const PATIENCE = 2; // seconds that a map may take before it is estimated from fewer passes; it is there in 3
const NEARLY = 0.9; // of a sixth: who can afford so much gets the sixth
const WARM_PASSES = 3; // that warm the network and are timed, when it was opened
const WARMING = 0.15; // seconds after which no further one begins: of a large network one tells enough
const AT_A_TIME = 0.15; // seconds between two looks at what was asked meanwhile
const FORGETTING = 0.3; // of what was known of a pass, when the next piece was timed

let model = null;
let given = null; // what the network was opened with, until all further workers have it
const crew = []; // further workers, which open the network once this one has
let called = 0; // when they were
let opening = 0; // seconds that the network took to open here, as in a further worker
let perPass = 0; // seconds, of late
let dropped = 0; // the last question of whoever this worker helps that needs no answer any more
let texts = null;
let numbers = 0;
const images = new Map(); // by number: {prepared, height, width, path, frame, clipped}; and scores of channels by class, once asked
const explaining = new Map(); // by the request's id: whether it is to stop

const handlers = { open, speak, read, predict, explain, word, trust: trustAgain, forget, help, ask: answerMasked };

self.onmessage = ({ data }) => receive(data, self);

/** Does what a message says, and replies to the asker: the page, or by its port another worker that this one helps. */
async function receive(message, asker) {
  if (message.do === "cancel") {
    if (explaining.has(message.what)) explaining.set(message.what, true);
    return;
  }
  if (message.do === "helper") return enlist(message.port);
  if (message.do === "lost") return crew[message.helper].lose();
  if (message.do === "serve") return void (message.port.onmessage = ({ data }) => receive(data, message.port));
  if (message.do === "drop") return void (dropped = message.until);
  if (message.do === "leave") return self.close();
  try {
    if (message.do !== "open" && message.do !== "help") await opened;
    const [reply, moved] = await handlers[message.do](message);
    asker.postMessage({ id: message.id, ...reply }, moved ?? []);
  } catch (error) {
    const refusal = error instanceof RangeError ? new Refused("refused.memory") : error; // an array that is too large
    if (refusal instanceof Refused) asker.postMessage({ id: message.id, refused: { key: refusal.key, values: refusal.values } });
    else asker.postMessage({ id: message.id, failed: String(error?.message ?? error) });
  }
}

let letIn;
const opened = new Promise((resolve) => (letIn = resolve)); // what is asked before waits

async function open(message) {
  const start = performance.now();
  const { meta, wasm } = message;
  texts = meta.words[meta.language];
  const network = { wasm, model: message.model, shape: [meta.channels, meta.size, meta.size] };
  const helpers = crewFor(network.model.byteLength);
  if (helpers) given = network;
  await openNetwork(network);
  model = meta;
  opening = (performance.now() - start) / 1000;
  const nothing = () => new Float32Array(meta.channels * meta.size * meta.size);
  const before = performance.now();
  for (let i = 0; i < WARM_PASSES && performance.now() - before < 1000 * WARMING; i++) {
    const pass = performance.now();
    await ask(nothing(), 1, ["logits"]);
    perPass = (performance.now() - pass) / 1000; // of the last: the first are slower
  }
  self.postMessage({ hire: helpers });
  called = performance.now();
  letIn();
  return [{ ready: true, seconds: (performance.now() - start) / 1000 }];
}

/** Takes in a further worker that the page has made. */
function enlist(port) {
  crew.push(hand(given, port));
  if (crew.length === crewFor(given.model.byteLength)) given = null;
}

/** Makes this worker one that shares another's passes. */
async function help(message) {
  await openNetwork(message);
  letIn();
  return [{ ready: true }];
}

/** Logits of n images for that other worker. */
async function answerMasked({ id, batch, n }) {
  await new Promise((resolve) => setTimeout(resolve)); // lets in that it is not needed any more
  if (id <= dropped) return [{ dropped: true }];
  return [{ logits: (await ask(batch, n, ["logits"])).logits }];
}

/** Speaks another language from now on. */
async function speak({ language }) {
  texts = model.words[language];
  return [{ speaking: language }];
}

/** An answer that was given before, in the words of the language that is spoken now. */
async function word({ prediction }) {
  return [{ prediction: worded(prediction, model, texts) }];
}

/** What holds of a map that was drawn before, in that language. */
async function trustAgain({ prediction, method, of, estimate }) {
  return [{ trusted: trust(model, method, prediction, of, texts, estimate) }];
}

async function forget({ image }) {
  images.delete(image);
  return [{ forgotten: true }];
}

/** An image that was read, by its number. */
function imageOf(message) {
  const entry = images.get(message.image);
  if (!entry) throw new Error(`image ${message.image} was not read, or is forgotten`);
  return entry;
}

/**
 * The images in a file, or one `frame` of it, as they are read with the time that is left. `prepared` asks for what the network
 * sees of each image, too, for whoever checks it.
 */
async function read({ id, name, bytes, frame: only = null, prepared: wanted = false }) {
  const whole = await decode(new Uint8Array(bytes), model.display);
  const found = only === null ? whole : whole.filter((one) => one.frame === only);
  const longest = found.length > MANY ? SMALL_PREVIEW : LONGEST_PREVIEW;
  const told = [];
  const moved = [];
  const began = performance.now();
  let looked = began;
  for (const [n, one] of found.entries()) {
    const { frame } = one;
    const now = performance.now();
    if (n && now - looked > 1000 * AT_A_TIME) {
      looked = now;
      self.postMessage({ id, progress: n / found.length, seconds_left: ((now - began) / 1000 / n) * (found.length - n), read: n, frames: found.length });
    }
    try {
      const { image } = one; // of several frames, this decodes it
      const prepared = prepare(image, model);
      const entry = { prepared, height: image.height, width: image.width, path: name, frame, clipped: clipped(image, model), own: image.own };
      const small = preview(image, model.white, longest);
      const bitmap = await createImageBitmap(new ImageData(small.rgba, small.width, small.height));
      images.set(numbers, entry);
      moved.push(bitmap);
      told.push({
        image: numbers++, frame, height: image.height, width: image.width, channels: image.channels, bits: image.bits,
        preview: bitmap, note: noteInWords(entry, model, texts), ...(wanted ? { prepared } : {}),
      });
    } catch (error) {
      if (found.length === 1 || !(error instanceof Refused)) throw error;
      told.push({ frame, refused: { key: error.key, values: error.values } });
    }
  }
  return [{ images: told }, moved];
}

async function predict(message) {
  return [{ prediction: worded(await predictionOf(imageOf(message)), model, texts) }];
}

async function predictionOf(entry) {
  const wanted = ["logits", "probabilities", ...(model.foreign ? ["distance"] : [])];
  entry.prediction ??= answerOf(model, await ask(entry.prepared, 1, wanted), entry);
  return entry.prediction;
}

/**
 * By `method` where it is given, else by the one that was tested, but no more of it than there is time for: see PATIENCE. Whoever
 * checks it asks for `most` channels of an estimate, and `workers` to do it, this one included.
 */
async function explain(message) {
  const entry = imageOf(message);
  const prediction = await predictionOf(entry);
  if (prediction.error) throw new Error(worded(prediction, model, texts).error);
  const of = message.of ?? model.classes.reduce((a, b) => (prediction.probabilities[b] > prediction.probabilities[a] ? b : a));
  const number = model.classes.indexOf(of);
  const side = model.size;
  const hands = crew.slice(0, message.workers ? message.workers - 1 : Infinity);
  const began = performance.now();
  const passes = { done: 0, all: 0, spared: 0 };
  const spent = () => (performance.now() - began) / 1000;
  const perDone = () => spent() / (passes.done - passes.spared);
  const finish = (evidence, height, width) => stretched(enlargement(height, width, side, side)(evidence));

  const askUnder = async (questions, told) => {
    passes.spared += questions.spared;
    const before = (passes.done += questions.spared);
    const scoreOf = (logits) => logits[number];
    const answers = await shared(questions.count, {
      crew: hands,
      batch: (from, n) => masked(entry.prepared, n, (i) => questions.mask(from + i)),
      own: async (batch, n) => {
        const start = performance.now();
        const { logits } = await ask(batch, n, ["logits"]);
        perPass += FORGETTING * ((performance.now() - start) / 1000 / n - perPass);
        return logits;
      },
      most: () => Math.round(AT_A_TIME / Math.max(perPass, 1e-3)),
      between: (first, done) => {
        passes.done = before + done;
        if (explaining.get(message.id)) throw new Cancelled();
        told(first.map(scoreOf));
      },
    });
    return answers.map(scoreOf);
  };
  const show = (height, width) => (evidence) => {
    const map = finish(evidence, height, width);
    const left = perDone() * (passes.all - passes.done);
    self.postMessage({ id: message.id, progress: passes.done / passes.all, seconds_left: left, map, method }, [map.buffer]);
  };

  let method = message.method ?? model.method;
  let [square, estimate, fuller] = [null, null, null];
  explaining.set(message.id, false);
  try {
    if (method === "rise") {
      passes.all = model.rise.masks;
      square = finish(await rise(model.rise, side, askUnder, show(side, side)), side, side);
    } else {
      const { map, dims } = await ask(entry.prepared, 1, ["map"]);
      const [, count, height, width] = dims;
      const known = ((entry.scores ??= {})[of] ??= new Map());
      const affordable = () => known.size + passesWithin(PATIENCE - spent(), hands);
      const channels = { count, height, width, data: map };
      if (!message.method && method === "score_cam" && count > affordable()) method = "score_cam_fast";
      const fast = method === "score_cam_fast";
      const bounded = !message.method && NEARLY * askedFor(count, true) > affordable();
      const budget = () => (passes.all = askedFor(count, fast, message.most ?? (bounded ? affordable() : Infinity)));
      square = finish(await scoreCam(channels, side, budget, known, askUnder, show(height, width)), height, width);
      passes.all = passes.done;
      if (passes.all < count) {
        estimate = { asked: passes.all, channels: count, coarse: passes.all < askedFor(count, true) };
        const next = estimate.coarse ? "score_cam_fast" : model.method;
        const wanted = askedFor(count, next === "score_cam_fast");
        const seconds = ((wanted - known.size) * perPass) / (1 + hands.filter((one) => one.ready).length);
        const atOnce = !message.method && wanted <= affordable(); // passes took less than was thought
        if (wanted > passes.all) fuller = { method: next, channels: wanted, seconds, at_once: atOnce };
      }
    }
  } catch (error) {
    if (!(error instanceof Cancelled)) throw error;
    return [{ cancelled: true }];
  } finally {
    explaining.delete(message.id);
  }
  const original = onOriginal(square, side, entry.height, entry.width, model.fit).map((value) => Math.min(Math.max(value, 0), 1));
  const empty = !original.some((value) => value > 0);
  const trusted = trust(model, method, prediction, of, texts, estimate);
  const workers = 1 + hands.filter((one) => one.ready).length;
  return [{ done: true, progress: 1, seconds_left: 0, map: square, original, empty, method, of, estimate, fuller, workers, ...trusted }, [original.buffer]];
}

/** For how many passes there is time, by what one takes of late and by who is there, or will be once it has opened the model. */
function passesWithin(seconds, hands) {
  const wait = Math.max(0, opening - (performance.now() - called) / 1000);
  const each = [seconds, ...hands.filter((one) => !one.gone).map((one) => seconds - (one.ready ? 0 : wait))];
  return Math.floor(each.reduce((sum, left) => sum + Math.max(left, 0), 0) / perPass);
}

class Cancelled extends Error {}

/** The image behind masks, [n, C, S, S]: where a mask is 0 the network sees what it takes for nothing. */
function masked(prepared, n, maskOf) {
  const places = model.size * model.size;
  const batch = new Float32Array(n * prepared.length);
  for (let i = 0; i < n; i++) {
    const mask = maskOf(i);
    for (let k = 0; k < model.channels; k++) {
      const hidden = model.hidden[k % model.hidden.length];
      const to = i * prepared.length + k * places;
      for (let p = 0; p < places; p++) batch[to + p] = hidden + (prepared[k * places + p] - hidden) * mask[p];
    }
  }
  return batch;
}
