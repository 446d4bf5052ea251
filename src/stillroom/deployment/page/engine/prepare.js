// A decoded image as the network was trained to see it: `as_stored` of stillroom/data/geometry.py, bit for bit, with
// Pillow's own resampling (its libImaging/Resample.c: two passes, 22 bits of weights, rounded after each).
import { Refused } from "./refused.js";

const WEIGHT_BITS = 22;

const bicubic = { support: 2, at: (x) => {
  x = Math.abs(x);
  if (x < 1) return ((-0.5 + 2) * x - (-0.5 + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
} };
const bilinear = { support: 1, at: (x) => (Math.abs(x) < 1 ? 1 - Math.abs(x) : 0) };

/**
 * @param {object} image as in common.js
 * @param {object} model the page's notes on the model: size, channels, white, fit
 * @returns {Float32Array} [C, S, S] in [0, 1]
 */
export function prepare(image, model) {
  let shown = image;
  if (image.bits === 16) {
    const above = brighter(image, model.white);
    if (above > Math.max(4, Math.floor((image.height * image.width) / 10000))) {
      throw new Refused("refused.too_bright", { highest: greatest(image.data), white: model.white });
    }
    if (above) shown = { ...image, data: image.data.map((value) => Math.min(value, model.white)) };
  }
  shown = withoutEqualChannels(shown);
  const square = fitted(model.channels === 3 ? shown : luminance(shown), model.size, model.fit);
  const places = model.size * model.size;
  const prepared = new Float32Array(model.channels * places);
  const spread = image.bits === 8 && model.white !== 255;
  for (let k = 0; k < model.channels; k++) {
    for (let i = 0; i < places; i++) {
      const value = square.data[square.channels === 3 ? 3 * i + k : i];
      prepared[k * places + i] = (spread ? toEven(value * (model.white / 255)) : value) / model.white;
    }
  }
  return prepared;
}

/** How many pixels have a value above white. */
export function brighter({ data, channels }, white) {
  let count = 0;
  for (let i = 0; i < data.length; i += channels) {
    let above = false;
    for (let k = 0; k < channels; k++) above ||= data[i + k] > white;
    count += above;
  }
  return count;
}

/** What `prepare` does to an image that one should know: how many pixels it shows as white; 0 for none. */
export const clipped = (image, model) => (image.bits === 16 ? brighter(image, model.white) : 0);

/** Values on the square, such as a heat map, laid back over an image of this size. */
export function onOriginal(values, size, height, width, fit) {
  let inner = { height: size, width: size, channels: 1, bits: 32, data: values };
  if (fit === "pad") {
    const box = innerBox(height, width, size);
    const data = new Float32Array(box.height * box.width);
    for (let r = 0; r < box.height; r++) {
      const from = (box.top + r) * size + box.left;
      data.set(values.subarray(from, from + box.width), r * box.width);
    }
    inner = { height: box.height, width: box.width, channels: 1, bits: 32, data };
  }
  return resized(inner, height, width, bilinear).data;
}

/** An image for people, at most `longest` pixels a side, RGBA of 8 bits; of 16 bits the darkest pixel is black, the brightest white. */
export function preview(image, white, longest) {
  const scale = Math.min(1, longest / Math.max(image.height, image.width));
  const [height, width] = [image.height, image.width].map((side) => Math.max(1, Math.round(side * scale)));
  let shown = image;
  if (image.bits === 16) {
    let [low, top] = [white, 0];
    for (const value of image.data) [low, top] = [Math.min(low, value), Math.max(top, Math.min(value, white))];
    const width = Math.max(1, top - low);
    const data = Uint8Array.from(image.data, (value) => Math.round(((Math.min(value, white) - low) * 255) / width));
    shown = { ...image, bits: 8, data };
  }
  const small = resized(shown, height, width, bicubic);
  const rgba = new Uint8ClampedArray(height * width * 4);
  for (let i = 0; i < height * width; i++) {
    for (let k = 0; k < 3; k++) rgba[4 * i + k] = small.data[small.channels === 3 ? 3 * i + k : i];
    rgba[4 * i + 3] = 255;
  }
  return { height, width, rgba };
}

/** As NumPy's rint: halves go to the even neighbour. */
export function toEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below;
}

function greatest(values) {
  let top = 0;
  for (const value of values) if (value > top) top = value;
  return top;
}

/** A grey image that was saved as RGB, with one channel. */
function withoutEqualChannels(image) {
  if (image.channels === 1) return image;
  const { data } = image;
  for (let i = 0; i < data.length; i += 3) if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) return image;
  const grey = new data.constructor(data.length / 3);
  for (let i = 0; i < grey.length; i++) grey[i] = data[3 * i];
  return { ...image, channels: 1, data: grey };
}

/** ITU-R 601 in whole numbers, which are the same on every machine. */
function luminance(image) {
  if (image.channels === 1) return image;
  const { data } = image;
  const grey = new data.constructor(data.length / 3);
  for (let i = 0; i < grey.length; i++) {
    grey[i] = Math.floor((299 * data[3 * i] + 587 * data[3 * i + 1] + 114 * data[3 * i + 2] + 500) / 1000);
  }
  return { ...image, channels: 1, data: grey };
}

function innerBox(height, width, size) {
  const scale = size / Math.max(height, width);
  const [h, w] = [height, width].map((side) => Math.max(1, toEven(side * scale)));
  return { height: h, width: w, top: Math.floor((size - h) / 2), left: Math.floor((size - w) / 2) };
}

function fitted(image, size, fit) {
  if (image.height === size && image.width === size) return image;
  if (fit === "resize") return resized(image, size, size, bicubic);
  const { height, width, top, left } = innerBox(image.height, image.width, size);
  const inner = resized(image, height, width, bicubic);
  const data = new image.data.constructor(size * size * image.channels);
  const line = width * image.channels;
  for (let r = 0; r < height; r++) {
    data.set(inner.data.subarray(r * line, (r + 1) * line), ((top + r) * size + left) * image.channels);
  }
  return { ...image, height: size, width: size, data };
}

/** `Image.resize`; 16 bits go through 32-bit floats, never above the image's own brightest value. */
function resized(image, height, width, filter) {
  if (image.height === height && image.width === width) return image;
  let { data } = image;
  if (image.bits === 16) data = Float32Array.from(data);
  const { channels } = image;
  const pass = image.bits === 8 ? passOf8Bits : passOfFloats;
  if (image.width !== width) data = pass(data, image.height, image.width, width, channels, false, filter);
  if (image.height !== height) data = pass(data, width, image.height, height, channels, true, filter);
  if (image.bits === 16) data = rounded(data, image);
  return { ...image, height, width, data };
}

function rounded(values, { data, channels }) {
  const tops = new Array(channels).fill(0);
  for (let i = 0; i < data.length; i++) tops[i % channels] = Math.max(tops[i % channels], data[i]);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = Math.min(Math.max(toEven(values[i]), 0), tops[i % channels]);
  return out;
}

/** For every place of the target: where its neighbours in the source begin, and their weights, which sum to 1. */
function weightsOf(source, target, filter) {
  const scale = source / target;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  return Array.from({ length: target }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(source, Math.trunc(centre + support + 0.5)) - start;
    const weights = new Float64Array(count);
    let sum = 0;
    for (let i = 0; i < count; i++) {
      weights[i] = filter.at((i + start - centre + 0.5) * (1 / stretch));
      sum += weights[i];
    }
    if (sum) for (let i = 0; i < count; i++) weights[i] /= sum;
    return { start, weights };
  });
}

/** One pass over [lines, source] (or, upright, [source, lines]) interleaved pixels. */
function passOf8Bits(data, lines, source, target, channels, upright, filter) {
  const out = new Uint8Array(lines * target * channels);
  const half = 1 << (WEIGHT_BITS - 1);
  const [step, across] = upright ? [lines * channels, channels] : [channels, source * channels];
  const [outStep, outAcross] = upright ? [lines * channels, channels] : [channels, target * channels];
  weightsOf(source, target, filter).forEach(({ start, weights }, place) => {
    const whole = Int32Array.from(weights, (w) => Math.trunc(w * (1 << WEIGHT_BITS) + (w < 0 ? -0.5 : 0.5)));
    for (let line = 0; line < lines; line++) {
      for (let k = 0; k < channels; k++) {
        let sum = half;
        let from = line * across + start * step + k;
        for (let i = 0; i < whole.length; i++, from += step) sum = (sum + data[from] * whole[i]) | 0;
        const value = sum >> WEIGHT_BITS;
        out[line * outAcross + place * outStep + k] = value < 0 ? 0 : value > 255 ? 255 : value;
      }
    }
  });
  return out;
}

function passOfFloats(data, lines, source, target, channels, upright, filter) {
  const out = new Float32Array(lines * target * channels);
  const [step, across] = upright ? [lines * channels, channels] : [channels, source * channels];
  const [outStep, outAcross] = upright ? [lines * channels, channels] : [channels, target * channels];
  weightsOf(source, target, filter).forEach(({ start, weights }, place) => {
    for (let line = 0; line < lines; line++) {
      for (let k = 0; k < channels; k++) {
        let sum = 0;
        let from = line * across + start * step + k;
        for (let i = 0; i < weights.length; i++, from += step) sum += data[from] * weights[i];
        out[line * outAcross + place * outStep + k] = sum;
      }
    }
  });
  return out;
}
