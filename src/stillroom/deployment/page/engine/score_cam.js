// Score-CAM as stillroom/explanation/score_cam.py has it, where its sources are; answers arrive some at a time.
import { enlargement, stretched, weightedSum } from "./maps.js";

const FEWEST_CHANNELS = 24;
const FEWEST_ASKED = 32;
const ASKED = 1 / 6;
const SPREAD = 0.3;
const CURIOSITY = 0.5;
const ROUNDS = 6;
const ROUGHNESS = 0.1;

/** For how many of a layer's channels the network is asked: where it is fast a sixth, or `most` where they are fewer. */
export function askedFor(channels, fast, most = Infinity) {
  if (!fast || channels < FEWEST_CHANNELS) return channels;
  return Math.min(Math.max(8, toEvenCount(channels * ASKED)), Math.max(most, FEWEST_ASKED));
}

/**
 * The class's evidence [h, w], at least 0.
 * @param {{count, height, width, data: Float32Array}} channels a layer's feature map of one image
 * @param {number} side of the image
 * @param {function(): number} budget for how many of the channels the network is asked; the others are estimated. Looked at before
 *   each round, for time may run out; no fewer are asked than were
 * @param {Map<number, number>} known by channel the class's logits that were asked before; what is asked is added
 * @param {function} ask (questions, told) -> Promise<number[]>: the class's logit under each of the masks [S, S] in [0, 1];
 *   `questions` holds their `count`, how many are `spared`, for they are known, and `mask(i)`; `told(scores so far)` is
 *   called in between
 * @param {function} show gets the evidence of the channels asked so far
 */
export async function scoreCam(channels, side, budget, known, ask, show) {
  const { count, height, width } = channels;
  const enlarge = enlargement(height, width, side, side);
  const area = height * width;
  const asked = [];
  const scoresOf = (chosen) => chosen.map((k) => known.get(k));
  const askAbout = async (chosen) => {
    const lacking = chosen.filter((k) => !known.has(k));
    const keep = (scores) => scores.forEach((score, i) => known.set(lacking[i], score));
    const mask = (i) => stretched(enlarge(channels.data.subarray(lacking[i] * area, (lacking[i] + 1) * area)));
    const questions = { count: lacking.length, spared: chosen.length - lacking.length, mask };
    keep(await ask(questions, (part) => {
      keep(part);
      const told = [...asked, ...chosen.filter((k) => known.has(k))];
      if (told.length) show(evidence(channels, told, scoresOf(told)));
    }));
    asked.push(...chosen);
  };
  const every = Array.from({ length: count }, (_, k) => k);
  if (budget() >= count) {
    await askAbout(every);
    return evidence(channels, every, scoresOf(every));
  }
  const distances = distancesBetween(channels);
  await askAbout(spread(distances, count, Math.max(4, toEvenCount(budget() * SPREAD))));
  for (let round = 0; round < ROUNDS; round++) {
    const { mean, deviation } = interpolated(distances, count, asked, scoresOf(asked));
    const taken = new Set(asked);
    const order = every.filter((k) => !taken.has(k));
    const promise = mean.map((value, k) => value + CURIOSITY * deviation[k]);
    order.sort((a, b) => promise[b] - promise[a] || a - b);
    await askAbout(order.slice(0, Math.max(0, Math.floor((budget() - asked.length) / (ROUNDS - round)))));
  }
  const { mean } = interpolated(distances, count, asked, scoresOf(asked));
  for (const k of asked) mean[k] = known.get(k);
  return evidence(channels, every, mean);
}

/** ReLU of the channels' mean, weighed by the softmax of their scores. */
function evidence(channels, chosen, scores) {
  const top = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = Array.from(scores, (score) => Math.exp(score - top));
  const whole = weights.reduce((a, b) => a + b, 0);
  const area = channels.height * channels.width;
  return weightedSum(chosen.length, area, (i) => weights[i] / whole, (i) => channels.data.subarray(chosen[i] * area, (chosen[i] + 1) * area));
}

/** Python's round. */
function toEvenCount(value) {
  const below = Math.floor(value);
  return value - below > 0.5 || (value - below === 0.5 && below % 2) ? below + 1 : below;
}

/** Squared distances between the channels as masks, [K * K]. */
function distancesBetween({ count, height, width, data }) {
  const area = height * width;
  const masks = new Float64Array(count * area);
  const squares = new Float64Array(count);
  for (let k = 0; k < count; k++) {
    const mask = stretched(data.slice(k * area, (k + 1) * area));
    for (let i = 0; i < area; i++) squares[k] += (masks[k * area + i] = mask[i]) ** 2;
  }
  const distances = new Float64Array(count * count);
  for (let a = 0; a < count; a++) {
    for (let b = 0; b < a; b++) {
      let product = 0;
      for (let i = 0; i < area; i++) product += masks[a * area + i] * masks[b * area + i];
      distances[a * count + b] = distances[b * count + a] = Math.max(squares[a] + squares[b] - 2 * product, 0);
    }
  }
  return distances;
}

/** So many channels, from the most central on, each the farthest from those before it. */
function spread(distances, count, wanted) {
  let first = 0;
  let least = Infinity;
  for (let k = 0; k < count; k++) {
    let sum = 0;
    for (let j = 0; j < count; j++) sum += distances[j * count + k];
    if (sum < least) [least, first] = [sum, k];
  }
  const chosen = [first];
  const nearest = distances.slice(first * count, (first + 1) * count);
  while (chosen.length < wanted) {
    let next = 0;
    for (let k = 1; k < count; k++) if (nearest[k] > nearest[next]) next = k;
    chosen.push(next);
    for (let k = 0; k < count; k++) nearest[k] = Math.min(nearest[k], distances[next * count + k]);
  }
  return chosen;
}

/** Mean and standard deviation of a Gaussian process over all channels, by a Cholesky factor of those asked. */
function interpolated(distances, count, asked, scores) {
  const n = asked.length;
  const between = Float64Array.from({ length: n * n }, (_, i) => distances[asked[Math.floor(i / n)] * count + asked[i % n]]);
  const sorted = between.slice().sort();
  const half = (n * n) >> 1;
  const middle = (n * n) % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  const width = 2 * middle || 1;
  const average = scores.reduce((a, b) => a + b, 0) / n;
  const spreadOf = Math.sqrt(scores.reduce((sum, score) => sum + (score - average) ** 2, 0) / n);
  const mean = new Float64Array(count).fill(average);
  const taken = new Float64Array(count);
  const factor = []; // rows of L, with K + roughness = L L'
  const solved = []; // rows of L^-1 K(asked, all), and of L^-1 (scores - average)
  for (let i = 0; i < n; i++) {
    const row = new Float64Array(i + 1);
    for (let j = 0; j <= i; j++) {
      let value = Math.exp(-between[i * n + j] / width) + (i === j ? ROUGHNESS : 0);
      const other = i === j ? row : factor[j];
      for (let k = 0; k < j; k++) value -= row[k] * other[k];
      row[j] = i === j ? Math.sqrt(value) : value / factor[j][j];
    }
    factor.push(row);
    const line = new Float64Array(count + 1);
    for (let c = 0; c < count; c++) line[c] = Math.exp(-distances[asked[i] * count + c] / width);
    line[count] = scores[i] - average;
    for (let k = 0; k < i; k++) {
      const before = solved[k];
      const share = row[k];
      for (let c = 0; c <= count; c++) line[c] -= share * before[c];
    }
    for (let c = 0; c <= count; c++) line[c] /= row[i];
    solved.push(line);
    for (let c = 0; c < count; c++) {
      mean[c] += line[count] * line[c];
      taken[c] += line[c] ** 2;
    }
  }
  return { mean, deviation: taken.map((value) => Math.sqrt(Math.max(1 - value, 0)) * spreadOf) };
}

