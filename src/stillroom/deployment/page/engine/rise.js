// RISE as stillroom/explanation/rise.py has it. Its patterns and their moves come with the page, as Python drew them.
import { fromBase64 } from "./common.js";
import { enlargement } from "./maps.js";

/**
 * The class's evidence [S, S], at least 0.
 * @param {{patterns: string, masks: number, places: number, reach: number, starts: number[][]}} drawn see page/__init__.py
 * @param {number} side of the image
 * @param {function} ask as in score_cam.js
 * @param {function} show gets the evidence of the masks asked so far
 */
export async function rise(drawn, side, ask, show) {
  const { masks: count, places, starts } = drawn;
  const bits = fromBase64(drawn.patterns);
  const enlarge = enlargement(places, places, side + drawn.reach, side + drawn.reach);
  const masks = Array.from({ length: count }, (_, n) => {
    const pattern = new Float32Array(places * places);
    for (let i = 0; i < pattern.length; i++) {
      const at = n * pattern.length + i;
      pattern[i] = (bits[at >> 3] >> (7 - (at & 7))) & 1;
    }
    const large = enlarge(pattern);
    const [top, left] = starts[n];
    const mask = new Float32Array(side * side);
    for (let r = 0; r < side; r++) {
      const from = (top + r) * (side + drawn.reach) + left;
      mask.set(large.subarray(from, from + side), r * side);
    }
    return mask;
  });
  const scores = await ask({ count, spared: 0, mask: (i) => masks[i] }, (part) => part.length && show(covariance(masks.slice(0, part.length), part)));
  return covariance(masks, scores);
}

function covariance(masks, scores) {
  const average = scores.reduce((a, b) => a + b, 0) / scores.length;
  const sums = new Float64Array(masks[0].length);
  const means = new Float64Array(masks[0].length);
  for (const mask of masks) for (let i = 0; i < sums.length; i++) means[i] += mask[i] / masks.length;
  masks.forEach((mask, n) => {
    const weight = scores[n] - average;
    for (let i = 0; i < sums.length; i++) sums[i] += weight * (mask[i] - means[i]);
  });
  return Float32Array.from(sums, (value) => Math.max(value, 0));
}
