// A worker that speaks the page's messages and answers by the file's name, so that every state of the face can be seen:
// sure-, set-, any-, foreign-, labels-, note-, broken-, frames-.
let meta = null;
let language = "en";
let next = 0;
const images = new Map();
const cancelled = new Set();
const WORDS = {
  en: { or: " or ", any: "any of the {n} classes", foreign: "not this kind of image", perhaps: "perhaps " },
  de: { or: " oder ", any: "jede der {n} Klassen", foreign: "kein Bild dieser Art", perhaps: "vielleicht " },
};
const pause = (ms) => new Promise((go) => setTimeout(go, ms));

function worded(kind, classes, p) {
  const w = WORDS[language];
  if (p.foreign) return w.foreign;
  if (kind === "labels") return `${classes[0]}, ${w.perhaps}${classes[1]}`;
  if (kind === "any") return w.any.replace("{n}", classes.length);
  return kind === "set" ? p.possible.join(w.or) : p.decision[0];
}

function predict(kind) {
  const { classes } = meta;
  const rest = (first, second) => classes.map((_, n) => (n === 0 ? first : n === 1 ? second : (1 - first - second) / Math.max(1, classes.length - 2)));
  const shares = kind === "any" ? classes.map((_, n) => (n ? (1 - 0.3) / (classes.length - 1) : 0.3)) : kind === "set" ? rest(0.74, 0.249) : rest(0.968, 0.021);
  const p = {
    decision: [classes[0]], probabilities: Object.fromEntries(classes.map((c, n) => [c, shares[n]])),
    possible: kind === "set" ? classes.slice(0, 2) : kind === "any" ? classes : [classes[0]], unsure: kind === "labels" ? [classes[1]] : [],
    foreign: kind === "foreign", foreign_score: kind === "foreign" ? 7.4 : 0.3, note: null, error: null,
    flagged: kind === "foreign" ? {} : Object.fromEntries(meta.points.map((x, n) => [`${x.of} at ${x.for} ${x.wanted}`, n === 0])), flags: "", kind,
  };
  if (meta.points.length && kind !== "foreign") p.flags = `flagged at a threshold for ${meta.points[0].for} ${meta.points[0].wanted}: ${meta.points[0].of}`;
  if (kind === "note") p.note = "3 pixels are brighter than 4095, the model's white, and shown as white";
  return { ...p, answer: worded(kind, classes, p) };
}

function blob(side, x0, y0, wide, share = 1) {
  const map = new Float32Array(side * side);
  for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) map[y * side + x] = share * Math.exp(-((x / side - x0) ** 2 + (y / side - y0) ** 2) / wide);
  return map.map((v) => (v < 0.02 ? 0 : v));
}

onmessage = async ({ data }) => {
  const { id } = data;
  try {
    if (data.do === "open") ({ meta } = data), ({ language } = meta), await pause(meta.mock?.opening ?? 20), postMessage({ id, ready: true, seconds: 0.02 });
    if (data.do === "cancel") cancelled.add(data.what), postMessage({ id: data.what, cancelled: true });
    if (data.do === "forget") images.delete(data.image), postMessage({ id, forgotten: true });
    if (data.do === "speak") (language = data.language), postMessage({ id, speaking: language });
    if (data.do === "word") postMessage({ id, prediction: { ...data.prediction, answer: worded(data.prediction.kind, meta.classes, data.prediction) } });
    if (data.do === "trust") postMessage({ id, trusted: { verdict: "faithful", statement: `In ${language} they are.` } });
    if (data.do === "read") {
      await pause(meta.mock?.reading ?? 0);
      const kind = data.name.split("-")[0];
      if (kind === "broken") return postMessage({ id, refused: { key: "refused.mock", values: { name: data.name } } });
      const count = kind === "frames" ? 3 : 1;
      if (count > 1 && data.frame === null) postMessage({ id, progress: 1 / 3, seconds_left: 4.2, read: 1, frames: 3 }), await pause(meta.mock?.frames ?? 0);
      const found = [];
      for (let n = 0; n < count; n++) {
        if (data.frame !== null && data.frame !== n + 1) continue;
        const preview = await createImageBitmap(new Blob([data.bytes]));
        images.set(++next, { kind: kind === "frames" ? "sure" : kind, height: preview.height, width: preview.width });
        found.push({ image: next, frame: count > 1 ? n + 1 : null, height: preview.height, width: preview.width, channels: 3, bits: 8, preview, note: null });
      }
      postMessage({ id, images: found });
    }
    if (data.do === "predict") postMessage({ id, prediction: predict(images.get(data.image).kind) });
    if (data.do === "explain") {
      const { height, width } = images.get(data.image);
      const steps = meta.mock?.steps ?? 4;
      for (let n = 1; n < steps; n++) {
        await pause(meta.mock?.step ?? 10);
        if (cancelled.has(id)) return;
        postMessage({ id, progress: n / steps, seconds_left: (steps - n) * 0.7, map: blob(meta.size, 0.55, 0.42, 0.05, n / steps) });
      }
      const map = blob(meta.size, 0.55, 0.42, 0.03);
      const original = new Float32Array(height * width);
      for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) original[y * width + x] = map[Math.floor((y * meta.size) / height) * meta.size + Math.floor((x * meta.size) / width)];
      const { estimate, fuller } = (!data.method && meta.mock?.first) || {};
      if (estimate) return postMessage({ id, progress: 1, done: true, map, original, empty: false, estimate, fuller, verdict: null, statement: "A first estimate." });
      const { verdict, statement } = meta.explanation ?? { verdict: null, statement: "Whether this model's maps are faithful was not tested." };
      postMessage({ id, progress: 1, done: true, map, original, empty: false, verdict, statement });
    }
  } catch (error) {
    postMessage({ id, failed: String(error.message ?? error) });
  }
};
