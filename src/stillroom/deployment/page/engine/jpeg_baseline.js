// Sequential JPEG of 8 bits (ITU-T T.81), number for number as libjpeg decodes it: its whole-number inverse transform, its
// smooth enlargement of colours. Colours come as they are stored, but for Adobe's, which come as RGB, as Pillow gives them.

import { Bits, damagedJpeg, jpegHead } from "./jpeg_stream.js";
import { Refused } from "./refused.js";

const ZIGZAG = [
  0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/**
 * @param {Uint8Array} bytes
 * @returns {Uint8Array} row by row, colours of a pixel together
 * @throws {Refused} it is damaged, or of another kind.
 */
export function decodeBaseline(bytes) {
  let head = jpegHead(bytes);
  if (head === null) throw damagedJpeg();
  if (head.kind !== 0xffc0 && head.kind !== 0xffc1) throw new Refused("refused.dicom_jpeg_kind");
  if (head.precision !== 8 || !head.rows || !head.columns || ![1, 3].includes(head.components.length)) throw damagedJpeg();
  const planes = planesOf(head);
  while (planes.some((plane) => !plane.read)) {
    const at = readScan(bytes, head, planes);
    if (planes.every((plane) => plane.read)) break;
    head = jpegHead(bytes, at, { ...head });
    if (head === null) throw damagedJpeg();
  }
  return together(head, planes.map((plane) => enlarged(plane, head)));
}

function planesOf({ components, rows, columns }) {
  const [h, v] = [Math.max(...components.map((one) => one.h)), Math.max(...components.map((one) => one.v))];
  const [across, down] = [Math.ceil(columns / (8 * h)), Math.ceil(rows / (8 * v))];
  return components.map((one) => {
    const [wide, high] = [across * one.h, down * one.v];
    return {
      ...one,
      stride: 8 * wide,
      pixels: new Uint8Array(64 * wide * high),
      width: Math.ceil((columns * one.h) / h),
      height: Math.ceil((rows * one.v) / v),
      scale: [h / one.h, v / one.v],
      across,
      down,
      read: false,
    };
  });
}

// -- scans --------------------------------------------------------------------------------------------------------
/** One scan's blocks into their planes; gives where it ends. */
function readScan(bytes, head, planes) {
  const { scan, quantisers, tables, restart } = head;
  const parts = scan.components.map(({ id, dc, ac }) => {
    const plane = planes.find((one) => one.id === id);
    const told = { plane, dc: tables.get(dc), ac: tables.get(16 + ac), quantiser: quantisers[plane.quantiser], before: 0 };
    if (!told.dc || !told.ac || !told.quantiser || plane.read) throw damagedJpeg();
    return told;
  });
  const bits = new Bits(bytes, head.data);
  const alone = parts.length === 1;
  const { plane } = parts[0];
  const [wide, high] = alone
    ? [Math.ceil(plane.width / 8), Math.ceil(plane.height / 8)]
    : [plane.across, plane.down];
  const block = new Int32Array(64);
  for (let unit = 0; unit < wide * high; unit++) {
    if (restart && unit && unit % restart === 0) {
      bits.restart(unit / restart - 1);
      for (const part of parts) part.before = 0;
    }
    const [x, y] = [unit % wide, Math.floor(unit / wide)];
    for (const part of parts) {
      const [h, v] = alone ? [1, 1] : [part.plane.h, part.plane.v];
      for (let one = 0; one < h * v; one++) {
        readBlock(bits, part, block);
        const [left, top] = [x * h + (one % h), y * v + Math.floor(one / h)];
        inverse(block, part.plane.pixels, 8 * top * part.plane.stride + 8 * left, part.plane.stride);
      }
    }
  }
  for (const part of parts) part.plane.read = true;
  return bits.marker();
}

function readBlock(bits, part, block) {
  block.fill(0);
  const size = bits.symbol(part.dc);
  if (size > 11) throw damagedJpeg();
  part.before += bits.signed(size);
  block[0] = part.before * part.quantiser[0];
  for (let at = 1; at < 64; at++) {
    const symbol = bits.symbol(part.ac);
    const [run, length] = [symbol >> 4, symbol & 15];
    if (!length && run !== 15) break;
    at += run;
    if (at > 63) throw damagedJpeg();
    if (length) block[ZIGZAG[at]] = bits.signed(length) * part.quantiser[at];
  }
}

// -- the inverse transform ----------------------------------------------------------------------------------------
// Loeffler, Ligtenberg and Moschytz's, in 13 bits behind the point; the first pass keeps two of them.
const [F0298, F0390, F0541, F0765, F0899, F1175] = [2446, 3196, 4433, 6270, 7373, 9633];
const [F1501, F1847, F1961, F2053, F2562, F3072] = [12299, 15137, 16069, 16819, 20995, 25172];
const work = new Int32Array(64);

function inverse(block, pixels, at, stride) {
  for (let column = 0; column < 8; column++) pass(block, column, 8, work, column, 8, 11, 1024);
  for (let row = 0; row < 8; row++) {
    pass(work, 8 * row, 1, work, 8 * row, 1, 18, 131072);
    for (let x = 0; x < 8; x++) {
      const value = work[8 * row + x] + 128;
      pixels[at + row * stride + x] = value < 0 ? 0 : value > 255 ? 255 : value;
    }
  }
}

function pass(from, start, step, to, first, next, shift, half) {
  const at = (k) => from[start + k * step];
  const even = (at(2) + at(6)) * F0541;
  const [e2, e3] = [even - at(6) * F1847, even + at(2) * F0765];
  const [e0, e1] = [(at(0) + at(4)) << 13, (at(0) - at(4)) << 13];
  const [t10, t13, t11, t12] = [e0 + e3, e0 - e3, e1 + e2, e1 - e2];
  const [o7, o5, o3, o1] = [at(7), at(5), at(3), at(1)];
  const z5 = (o7 + o3 + o5 + o1) * F1175;
  const z1 = -(o7 + o1) * F0899;
  const z2 = -(o5 + o3) * F2562;
  const z3 = -(o7 + o3) * F1961 + z5;
  const z4 = -(o5 + o1) * F0390 + z5;
  const d0 = o7 * F0298 + z1 + z3;
  const d1 = o5 * F2053 + z2 + z4;
  const d2 = o3 * F3072 + z2 + z3;
  const d3 = o1 * F1501 + z1 + z4;
  const sums = [t10 + d3, t11 + d2, t12 + d1, t13 + d0, t13 - d0, t12 - d1, t11 - d2, t10 - d3];
  for (let k = 0; k < 8; k++) to[first + k * next] = (sums[k] + half) >> shift;
}

// -- colours at their full size -----------------------------------------------------------------------------------
/** A plane at the picture's size: between two numbers a quarter of the farther and three of the nearer one. */
function enlarged(plane, { rows, columns }) {
  const [across, down] = plane.scale;
  if (!Number.isInteger(across) || !Number.isInteger(down)) throw new Refused("refused.dicom_jpeg_kind");
  const out = new Uint8Array(rows * columns);
  const smooth = (across === 2 && down <= 2 && plane.width > 2) || (across === 1 && down === 2);
  for (let y = 0; y < rows; y++) {
    const row = Math.floor(y / down);
    const other = Math.min(Math.max(y % 2 ? row + 1 : row - 1, 0), plane.height - 1);
    const near = plane.pixels.subarray(row * plane.stride);
    const far = plane.pixels.subarray(other * plane.stride);
    const line = out.subarray(y * columns, (y + 1) * columns);
    if (!smooth) line.forEach((_, x) => (line[x] = near[Math.floor(x / across)]));
    else if (across === 1) line.forEach((_, x) => (line[x] = (3 * near[x] + far[x] + (y % 2 ? 2 : 1)) >> 2));
    else if (down === 1) stretched(line, (x) => near[x], plane.width, 2, [1, 2]);
    else stretched(line, (x) => 3 * near[x] + far[x], plane.width, 4, [8, 7]);
  }
  return out;
}

/** Twice as many numbers. What is added before bits are dropped, on even and on odd places, is libjpeg's. */
function stretched(line, at, width, shift, added) {
  for (let x = 0; x < line.length; x++) {
    const own = x >> 1;
    const next = Math.min(Math.max(x % 2 ? own + 1 : own - 1, 0), width - 1);
    line[x] = (3 * at(own) + at(next) + added[x % 2]) >> shift;
  }
}

function together(head, planes) {
  if (planes.length === 1) return planes[0];
  const { adobe, jfif, components } = head;
  const ids = String.fromCharCode(...components.map((one) => one.id));
  if (adobe === null && !jfif && ids === "RGB") throw damagedJpeg(); // of which libjpeg makes no YBR
  const out = new Uint8Array(3 * planes[0].length);
  planes.forEach((plane, sample) => plane.forEach((value, at) => (out[3 * at + sample] = value)));
  return adobe === null || (adobe === 0 && !jfif) ? out : toRgb(out);
}

/** YBR to RGB in libjpeg's whole numbers, of 16 bits behind the point. */
function toRgb(values) {
  const clamp = (one) => (one < 0 ? 0 : one > 255 ? 255 : one);
  for (let at = 0; at < values.length; at += 3) {
    const [y, b, r] = [values[at], values[at + 1] - 128, values[at + 2] - 128];
    values[at] = clamp(y + ((91881 * r + 32768) >> 16));
    values[at + 1] = clamp(y + ((-22554 * b - 46802 * r + 32768) >> 16));
    values[at + 2] = clamp(y + ((116130 * b + 32768) >> 16));
  }
  return values;
}
