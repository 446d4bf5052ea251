// PNG by the specification (third edition), every kind: a canvas keeps the high byte of 16 bits alone and loses what lies
// under transparent pixels.
import { inflated, latin, requireSize, viewOf } from "./common.js";
import { exifOrientation, turned, xmpOrientation } from "./orientation.js";
import { Refused } from "./refused.js";
import { onBlack } from "./transparency.js";

const CRC = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});
const END = "IEND\xaeB`\x82"; // the last chunk's name and checksum, which are the same in every file
const SAMPLES = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
// Adam7: first column and row of each pass, and the steps between.
const PASSES = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

export const isPng = (bytes) => latin(bytes, 0, 8) === "\x89PNG\r\n\x1a\n";

/** One decoded image, right way up. */
export async function readPng(bytes) {
  const found = chunks(bytes);
  const { width, height, depth, kind, interlaced } = found.header;
  if (found.frames > 1) throw new Refused("refused.frames", { count: found.frames });
  if (depth === 16 && kind !== 0) throw new Refused("refused.deep_colour");
  const passes = interlaced ? PASSES : [[0, 0, 1, 1]];
  const bitsPerPixel = SAMPLES[kind] * depth;
  const parts = passes
    .map(([x, y, dx, dy]) => ({ x, y, dx, dy, columns: Math.ceil((width - x) / dx), rows: Math.ceil((height - y) / dy) }))
    .filter((part) => part.columns > 0 && part.rows > 0)
    .map((part) => ({ ...part, stride: Math.ceil((part.columns * bitsPerPixel) / 8) }));
  const needed = parts.reduce((sum, part) => sum + part.rows * (part.stride + 1), 0);
  const raw = await inflated(found.data, "deflate", needed);
  if (raw.length < needed) throw new Refused(ended(bytes) ? "refused.changed" : "refused.truncated");

  const samples = new (depth === 16 ? Uint16Array : Uint8Array)(width * height * SAMPLES[kind]);
  let at = 0;
  for (const part of parts) {
    unfilter(raw, at, part, Math.max(1, bitsPerPixel >> 3));
    place(raw, at, part, samples, width, SAMPLES[kind], depth);
    at += part.rows * (part.stride + 1);
  }
  const image = meant(samples, found);
  const orientation = (found.exif && exifOrientation(found.exif)) || (found.xmp && xmpOrientation(found.xmp)) || 1;
  return turned(image, orientation);
}

/** Whether the file's end is there, of whose picture a part is missing: it was not cut off then. A few bytes may follow. */
const ended = (bytes) => latin(bytes, Math.max(0, bytes.length - 1024), bytes.length).includes(END);

/** The chunks that count: header, palette, transparency, orientation, the number of frames, and all image data as one. */
function chunks(bytes) {
  const view = viewOf(bytes);
  const found = { header: null, palette: null, transparency: null, exif: null, xmp: null, frames: 1, data: null };
  const pieces = [];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const name = latin(bytes, at + 4, at + 8);
    const start = at + 8;
    const end = start + length;
    if (end + 4 > bytes.length) {
      if (name === "IDAT") pieces.push(bytes.subarray(start)); // whether it is enough is told by what it holds
      break;
    }
    const body = bytes.subarray(start, end);
    if (!pieces.length && name !== "IDAT" && checksum(bytes, at + 4, end) !== view.getUint32(end)) {
      throw new Refused("refused.damaged");
    }
    at = end + 4;
    if (name === "IHDR") found.header = headerOf(viewOf(body));
    else if (!found.header) throw new Refused("refused.damaged");
    else if (name === "IDAT") pieces.push(body);
    else if (name === "PLTE") found.palette = body;
    else if (name === "tRNS") found.transparency = body;
    else if (name === "acTL") found.frames = viewOf(body).getUint32(0);
    else if (name === "eXIf") found.exif = body;
    else if (name === "iTXt" && latin(body, 0, 18) === "XML:com.adobe.xmp\0") found.xmp = new TextDecoder().decode(body);
    else if (name === "IEND") break;
  }
  if (!found.header || !pieces.length || (found.header.kind === 3 && !found.palette)) throw new Refused("refused.damaged");
  found.data = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  pieces.reduce((at, piece) => (found.data.set(piece, at), at + piece.length), 0);
  return found;
}

function headerOf(view) {
  if (view.byteLength < 13) throw new Refused("refused.damaged");
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [depth, kind, compression, filter, interlace] = [8, 9, 10, 11, 12].map((at) => view.getUint8(at));
  if (!DEPTHS[kind]?.includes(depth) || compression || filter || interlace > 1) throw new Refused("refused.damaged");
  requireSize(height, width);
  return { width, height, depth, kind, interlaced: interlace === 1 };
}

function checksum(bytes, start, end) {
  let crc = 0xffffffff;
  for (let i = start; i < end; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** Undoes the filters of a pass in place; `step` is the bytes of a pixel. */
function unfilter(raw, start, { rows, stride }, step) {
  for (let r = 0; r < rows; r++) {
    const line = start + r * (stride + 1) + 1;
    const above = line - stride - 1;
    const filter = raw[line - 1];
    if (filter > 4) throw new Refused("refused.damaged");
    for (let i = 0; filter && i < stride; i++) {
      const left = i < step ? 0 : raw[line + i - step];
      const up = r ? raw[above + i] : 0;
      const corner = r && i >= step ? raw[above + i - step] : 0;
      raw[line + i] += filter === 1 ? left : filter === 2 ? up : filter === 3 ? (left + up) >> 1 : paeth(left, up, corner);
    }
  }
}

function paeth(left, up, corner) {
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

/** Puts the samples of a pass where they belong in the whole image. */
function place(raw, start, { x, y, dx, dy, columns, rows, stride }, samples, width, count, depth) {
  const mask = (1 << depth) - 1;
  for (let r = 0; r < rows; r++) {
    const line = start + r * (stride + 1) + 1;
    for (let c = 0; c < columns; c++) {
      const to = ((y + r * dy) * width + x + c * dx) * count;
      for (let k = 0; k < count; k++) {
        const i = c * count + k;
        if (depth === 8) samples[to + k] = raw[line + i];
        else if (depth === 16) samples[to + k] = (raw[line + 2 * i] << 8) | raw[line + 2 * i + 1];
        else samples[to + k] = (raw[line + ((i * depth) >> 3)] >> (8 - depth - ((i * depth) & 7))) & mask;
      }
    }
  }
}

/** Samples as the image that they mean. */
function meant(samples, { header, palette, transparency }) {
  const { width, height, depth, kind } = header;
  const pixels = width * height;
  if (kind === 0) {
    const bits = depth === 16 ? 16 : 8;
    if (depth < 8) for (let i = 0; i < pixels; i++) samples[i] *= 255 / ((1 << depth) - 1);
    if (transparency) blackOut(samples, keyOf(transparency, 1)[0], depth);
    return { height, width, channels: 1, bits, data: samples };
  }
  if (kind === 4) return onBlack(samples, height, width, 1);
  if (kind === 6) return onBlack(samples, height, width, 3);
  if (kind === 2 && !transparency) return { height, width, channels: 3, bits: 8, data: samples };
  const key = kind === 2 ? keyOf(transparency, 3) : null;
  const rgba = new Uint8Array(pixels * 4);
  for (let i = 0; i < pixels; i++) {
    if (kind === 3) {
      const entry = samples[i];
      for (let k = 0; k < 3; k++) rgba[4 * i + k] = palette[3 * entry + k] ?? 0;
      rgba[4 * i + 3] = transparency?.[entry] ?? 255;
    } else {
      for (let k = 0; k < 3; k++) rgba[4 * i + k] = samples[3 * i + k];
      rgba[4 * i + 3] = key.every((value, k) => value === samples[3 * i + k]) ? 0 : 255;
    }
  }
  return onBlack(rgba, height, width, 3);
}

function keyOf(transparency, count) {
  if (transparency.length < 2 * count) throw new Refused("refused.damaged");
  return Array.from({ length: count }, (_, k) => viewOf(transparency).getUint16(2 * k));
}

/** Grey with 0 where it has the value that is declared transparent; of 2 and 4 bits Pillow compares what was scaled. */
function blackOut(grey, key, depth) {
  const value = depth === 1 ? (key ? 255 : 0) : key;
  for (let i = 0; i < grey.length; i++) if (grey[i] === value) grey[i] = 0;
}
