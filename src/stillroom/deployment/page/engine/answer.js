// The network's outputs to an answer, by the rules in the file: `Predictor.answers` of stillroom/deployment/predictor.py.
import { short } from "./words.js";

const SMALLEST = 1e-300; // as in stillroom/evaluation/conformal.py

/**
 * @param {object} model the page's notes on the model
 * @param {{logits: Float32Array, probabilities: Float32Array, distance?: Float32Array}} found of one image
 * @param {{path: string, frame: number|null, clipped: number, own?: object|null}} image
 * @returns {object} the fields of `Prediction.to_dict`, those in words still empty (see `worded` in words.js), and what they
 *   are made of: `points`, `clipped`, `own`; and whether the answer is `positive`
 */
export function answerOf(model, found, image) {
  const { classes } = model;
  const logits = Array.from(found.logits);
  const chance = Array.from(found.probabilities);
  const distance = found.distance ? found.distance[0] : 0;
  const blank = {
    path: image.path, frame: image.frame, answer: null, decision: [], probabilities: {}, possible: null, unsure: [], foreign: null,
    foreign_score: null, flagged: {}, promised: {}, note: null, error: null, flags: "", clipped: image.clipped, own: image.own,
    points: [], positive: false,
  };
  if (![...logits, ...chance, distance].every(Number.isFinite)) return { ...blank, error: "not finite" };

  const decided = decide(model, chance);
  const named = (chosen) => classes.filter((_, k) => chosen[k]);
  const prediction = {
    ...blank,
    decision: named(decided),
    probabilities: Object.fromEntries(classes.map((name, k) => [name, chance[k]])),
    positive: model.kind === "multiclass" || (model.exclusive ? !decided[0] : decided.some(Boolean)),
  };
  if (model.conformal) {
    const sets = setsOf(model, logits);
    prediction.possible = named(model.exclusive ? sets : sets.map(([, present]) => present));
    if (!model.exclusive) prediction.unsure = named(sets.map(([absent, present]) => absent && present));
  }
  if (model.foreign) {
    const rule = model.foreign;
    prediction.foreign_score = Math.max(
      (energy(model, logits) - rule.energy_location) / rule.energy_scale,
      (distance - rule.distance_location) / rule.distance_scale,
    );
    prediction.foreign = rule.threshold !== null && prediction.foreign_score > rule.threshold;
  }
  if (!prediction.foreign) {
    const asked = chances(model, probabilitiesOf(model, logits, model.temperature));
    prediction.points = model.points.map((point) => ({
      of: point.of, kind: point.for, wanted: point.wanted, promised: point.promised,
      on: asked[model.questions.indexOf(point.of)] >= point.threshold,
    }));
    for (const { of, kind, wanted, promised, on } of prediction.points) {
      prediction.flagged[`${of} at ${kind} ${short(wanted)}`] = on;
      prediction.promised[`${of} at ${kind} ${short(wanted)}`] = promised;
    }
  }
  return prediction;
}

/** Logits to probabilities, at a temperature; see stillroom/task. */
function probabilitiesOf(model, logits, temperature) {
  const scaled = logits.map((logit) => logit / temperature);
  if (!model.exclusive && !model.paper_softmax) return scaled.map((value) => Math.exp(-softplus(-value)));
  const whole = logSumExp(scaled);
  return scaled.map((value) => Math.exp(value - whole));
}

const softplus = (value) => Math.max(value, 0) + Math.log1p(Math.exp(-Math.abs(value)));

function logSumExp(values) {
  const top = Math.max(...values);
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0));
}

/** Which classes are decided for. */
function decide(model, chance) {
  if (!model.exclusive) return chance.map((value) => value > 0.5);
  const best = chance.indexOf(Math.max(...chance));
  return chance.map((_, k) => k === best);
}

/** Which classes cannot be ruled out; of labels each as [absent, present]. */
function setsOf(model, logits) {
  const chance = probabilitiesOf(model, logits, 1);
  const decided = decide(model, chance);
  const within = (value, threshold) => threshold === null || -Math.log(Math.max(value, SMALLEST)) <= threshold;
  const { thresholds } = model.conformal;
  if (model.exclusive) return chance.map((value, k) => within(value, thresholds[k]) || decided[k]);
  return chance.map((value, k) => [
    within(1 - value, thresholds[k][0]) || !decided[k],
    within(value, thresholds[k][1]) || decided[k],
  ]);
}

function energy(model, logits) {
  return model.exclusive ? -logSumExp(logits) : -logits.reduce((sum, logit) => sum + softplus(logit), 0);
}

/** The chance of yes to each question that a threshold may be for; see stillroom/evaluation/questions.py. */
function chances(model, probabilities) {
  if (model.kind === "binary") return [probabilities[1]];
  if (model.kind !== "ordinal") return probabilities;
  const above = [];
  let sum = 0;
  for (let k = probabilities.length - 1; k > 0; k--) above.unshift(Math.min((sum += probabilities[k]), 1));
  return above;
}
