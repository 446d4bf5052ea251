// The engine's one door, a worker: messages in, messages out, as page/__init__.py describes them.
import { answerOf } from "./answer.js";
import { decode } from "./decode.js";
import { enlargement, stretched } from "./maps.js";
import { clipped, onOriginal, prepare, preview } from "./prepare.js";
import { Refused } from "./refused.js";
import { rise } from "./rise.js";
import { askedFor, scoreCam } from "./score_cam.js";
import { noteInWords, trust, worded } from "./words.js";

const LONGEST_PREVIEW = 2048; // pixels a side
const MANY = 8; // frames of a file; of more, previews are small
const SMALL_PREVIEW = 512;
const PATIENCE = 3; // seconds that an exact map may take before it is estimated from fewer passes
const AT_A_TIME = 0.15; // seconds between two looks at what was asked meanwhile
const MOST_AT_ONCE = 16; // masked images; more are no faster, and take memory

let model = null;
let session = null;
let perPass = Infinity; // seconds, at best so far
let texts = null;
let numbers = 0;
const images = new Map(); // by number: {prepared, height, width, path, frame, clipped}
const explaining = new Map(); // by the request's id: whether it is to stop

const handlers = { open, speak, read, predict, explain, word, trust: trustAgain, forget };

self.onmessage = async ({ data: message }) => {
  if (message.do === "cancel") {
    if (explaining.has(message.what)) explaining.set(message.what, true);
    return;
  }
  try {
    if (message.do !== "open") await opened;
    const [reply, moved] = await handlers[message.do](message);
    self.postMessage({ id: message.id, ...reply }, moved ?? []);
  } catch (error) {
    const refusal = error instanceof RangeError ? new Refused("refused.memory") : error; // an array that is too large
    if (refusal instanceof Refused) self.postMessage({ id: message.id, refused: { key: refusal.key, values: refusal.values } });
    else self.postMessage({ id: message.id, failed: String(error?.message ?? error) });
  }
};

let letIn;
const opened = new Promise((resolve) => (letIn = resolve)); // what is asked before waits

async function open(message) {
  const start = performance.now();
  const { meta } = message;
  texts = meta.words[meta.language];
  ort.env.wasm.wasmBinary = message.wasm;
  ort.env.wasm.numThreads = 1; // threads need headers that a file cannot have
  ort.env.logLevel = "fatal";
  session = await ort.InferenceSession.create(new Uint8Array(message.model), {
    executionProviders: ["wasm"], graphOptimizationLevel: "all",
  });
  model = meta;
  const nothing = new Float32Array(model.channels * model.size * model.size);
  for (let i = 0; i < 3; i++) {
    const pass = performance.now();
    await ask(nothing, 1, ["logits"]);
    perPass = Math.min(perPass, (performance.now() - pass) / 1000);
  }
  letIn();
  return [{ ready: true, seconds: (performance.now() - start) / 1000 }];
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
async function trustAgain({ prediction, method, of }) {
  return [{ trusted: trust(model, method, prediction, of, texts) }];
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

/** `prepared` asks for what the network sees of each image, too, for whoever checks it. */
async function read({ name, bytes, prepared: wanted = false }) {
  const found = await decode(new Uint8Array(bytes), model.display);
  const longest = found.length > MANY ? SMALL_PREVIEW : LONGEST_PREVIEW;
  const told = [];
  const moved = [];
  for (const one of found) {
    const { frame } = one;
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

/** By `method` where it is given, else by the one that was tested; see PATIENCE. */
async function explain(message) {
  const entry = imageOf(message);
  const prediction = await predictionOf(entry);
  if (prediction.error) throw new Error(worded(prediction, model, texts).error);
  const of = message.of ?? model.classes.reduce((a, b) => (prediction.probabilities[b] > prediction.probabilities[a] ? b : a));
  const number = model.classes.indexOf(of);
  const side = model.size;
  const began = performance.now();
  const passes = { done: 0, all: 0 };
  const finish = (evidence, height, width) => stretched(enlargement(height, width, side, side)(evidence));

  const askUnder = async (questions, told) => {
    const scores = [];
    while (scores.length < questions.count) {
      const at = scores.length;
      const wanted = Math.max(1, Math.round(AT_A_TIME / Math.max(perPass, 1e-3)));
      const n = Math.min(MOST_AT_ONCE, wanted, questions.count - at);
      const start = performance.now();
      const { logits } = await ask(masked(entry.prepared, n, (i) => questions.mask(at + i)), n, ["logits"]);
      perPass = Math.min(perPass, (performance.now() - start) / 1000 / n); // what runs often gets faster
      for (let i = 0; i < n; i++) scores.push(logits[i * model.classes.length + number]);
      passes.done += n;
      await new Promise((resolve) => setTimeout(resolve)); // lets a message in
      if (explaining.get(message.id)) throw new Cancelled();
      told(scores);
    }
    return scores;
  };
  const show = (height, width) => (evidence) => {
    const spent = (performance.now() - began) / 1000;
    const share = Math.min(passes.done / passes.all, 1);
    const map = finish(evidence, height, width);
    self.postMessage({ id: message.id, progress: share, seconds_left: (spent / share) * (1 - share), map, method }, [map.buffer]);
  };

  let method = message.method ?? model.method;
  let square;
  explaining.set(message.id, false);
  try {
    if (method === "rise") {
      passes.all = model.rise.masks;
      square = finish(await rise(model.rise, side, askUnder, show(side, side)), side, side);
    } else {
      const { map, dims } = await ask(entry.prepared, 1, ["map"]);
      const [, count, height, width] = dims;
      if (!message.method && method === "score_cam" && count * perPass > PATIENCE) method = "score_cam_fast";
      const fast = method === "score_cam_fast";
      passes.all = askedFor(count, fast);
      const channels = { count, height, width, data: map };
      square = finish(await scoreCam(channels, side, fast, askUnder, show(height, width)), height, width);
    }
  } catch (error) {
    if (!(error instanceof Cancelled)) throw error;
    return [{ cancelled: true }];
  } finally {
    explaining.delete(message.id);
  }
  const original = onOriginal(square, side, entry.height, entry.width, model.fit).map((value) => Math.min(Math.max(value, 0), 1));
  const empty = !original.some((value) => value > 0);
  const trusted = trust(model, method, prediction, of, texts);
  return [{ done: true, progress: 1, seconds_left: 0, map: square, original, empty, method, of, ...trusted }, [original.buffer]];
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

let last = Promise.resolve();

/** Outputs of the graph by name; `dims` are those of the last. One question at a time: the runtime holds one. */
function ask(batch, n, names) {
  const asked = last.then(async () => {
    const feeds = { images: new ort.Tensor("float32", batch, [n, model.channels, model.size, model.size]) };
    const found = await session.run(feeds, names);
    return { ...Object.fromEntries(names.map((name) => [name, found[name].data])), dims: found[names.at(-1)].dims };
  });
  last = asked.catch(() => {});
  return asked;
}
