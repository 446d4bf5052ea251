// JPEG-LS, lossless and nearly so (ITU-T T.87).

import { damagedJpeg, jpegHead } from "./jpeg_stream.js";
import { Refused } from "./refused.js";

const RUNS = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const CONTEXTS = 365;
const [BY_PLANE, BY_LINE, BY_PIXEL] = [0, 1, 2];

/**
 * @param {Uint8Array} bytes
 * @returns {{samples: Uint16Array, interleaved: boolean}} row by row, colours of a pixel together or plane by plane
 * @throws {Refused} it is damaged, or of another kind.
 */
export function decodeLs(bytes) {
  let head = jpegHead(bytes);
  if (head === null) throw damagedJpeg();
  const { kind, components, precision, rows, columns, segments } = head;
  if (kind !== 0xfff7 || transformed(segments.get(0xffe8))) throw new Refused("refused.dicom_jpeg_kind");
  if (!(precision >= 2 && precision <= 16) || !rows || !columns || head.restart) throw damagedJpeg();
  if (components.some(({ h, v }) => h !== 1 || v !== 1)) throw new Refused("refused.dicom_jpeg_kind");
  const planes = new Map(components.map(({ id }) => [id, null]));
  const how = head.scan.end;
  while ([...planes.values()].includes(null)) {
    const scan = new Scan(bytes, head);
    if (scan.ids.some((id) => planes.get(id)) || head.scan.end !== how) throw damagedJpeg();
    scan.read().forEach((plane, at) => planes.set(scan.ids[at], plane));
    if (![...planes.values()].includes(null)) break;
    head = jpegHead(bytes, scan.bits.marker(), { ...head });
    if (head === null) throw damagedJpeg();
  }
  return { samples: laid([...planes.values()], how !== BY_PLANE), interleaved: how !== BY_PLANE };
}

/** Whether colours went through a transform, which is an extension of one maker. */
function transformed(segment) {
  return segment !== undefined && String.fromCharCode(...segment.subarray(0, 4)) === "mrfx" && segment[4] !== 0;
}

function laid(planes, interleaved) {
  if (planes.length === 1) return planes[0];
  const [count, pixels] = [planes.length, planes[0].length];
  const samples = new Uint16Array(count * pixels);
  planes.forEach((plane, sample) => {
    if (!interleaved) samples.set(plane, sample * pixels);
    else plane.forEach((value, at) => (samples[count * at + sample] = value));
  });
  return samples;
}

// -- a scan -------------------------------------------------------------------------------------------------------
class Scan {
  constructor(bytes, { scan, components, precision, rows, columns, segments, data }) {
    const [near, how] = [scan.start, scan.end];
    this.ids = scan.components.map((one) => one.id);
    const together = this.ids.length > 1;
    if (together !== (how !== BY_PLANE) || ![BY_PLANE, BY_LINE, BY_PIXEL].includes(how)) throw damagedJpeg();
    if (scan.low || (together && this.ids.length !== components.length)) throw damagedJpeg();
    Object.assign(this, { how, near, rows, columns, bits: new LsBits(bytes, data) });
    Object.assign(this, preset(segments.get(0xfff8), near, precision));
    this.range = Math.floor((this.most + 2 * near) / (2 * near + 1)) + 1;
    this.span = this.range * (2 * near + 1);
    this.deep = Math.ceil(Math.log2(this.range));
    const wide = Math.max(2, Math.ceil(Math.log2(this.most + 1)));
    this.limit = 2 * (wide + Math.max(8, wide));
    const first = Math.max(2, (this.range + 32) >> 6);
    this.sums = new Int32Array(CONTEXTS + 2).fill(first); // A: of sizes; the last two are of what ends a run
    this.biases = new Int32Array(CONTEXTS); // B
    this.shifts = new Int32Array(CONTEXTS); // C
    this.counts = new Int32Array(CONTEXTS + 2).fill(1); // N
    this.negatives = new Int32Array(2); // Nn
  }

  /** Each component's numbers. */
  read() {
    const width = this.columns;
    const planes = this.ids.map(() => new Uint16Array(this.rows * width));
    // A line with a number more at both ends: before the first, of the line above, and behind the last, its repetition.
    let lines = this.ids.map(() => ({ above: new Int32Array(width + 2), own: new Int32Array(width + 2), run: 0 }));
    for (let y = 0; y < this.rows; y++) {
      for (const line of lines) {
        line.above[width + 1] = line.above[width];
        line.own[0] = line.above[1];
      }
      if (this.how === BY_PIXEL) this.readPixels(lines);
      else for (const line of lines) this.readLine(line);
      planes.forEach((plane, at) => plane.set(lines[at].own.subarray(1, width + 1), y * width));
      lines = lines.map(({ above, own, run }) => ({ above: own, own: above, run }));
    }
    return planes;
  }

  readLine(line) {
    const { above, own } = line;
    for (let x = 1; x <= this.columns; ) {
      const context = this.contextOf(above, own, x);
      if (context !== 0) {
        own[x] = this.regular(context, above, own, x);
        x += 1;
        continue;
      }
      const run = this.runLength(line, this.columns - x + 1);
      own.fill(own[x - 1], x, x + run);
      x += run;
      if (x > this.columns) break;
      own[x] = this.endOfRun(own[x - 1], above[x], line.run, null);
      line.run = Math.max(line.run - 1, 0);
      x += 1;
    }
  }

  /** Pixels of which all components go together; a run is one of all of them. */
  readPixels(lines) {
    const [first] = lines;
    for (let x = 1; x <= this.columns; ) {
      const contexts = lines.map(({ above, own }) => this.contextOf(above, own, x));
      if (contexts.some((context) => context !== 0)) {
        lines.forEach(({ above, own }, at) => (own[x] = this.regular(contexts[at], above, own, x)));
        x += 1;
        continue;
      }
      const run = this.runLength(first, this.columns - x + 1);
      for (const { own } of lines) own.fill(own[x - 1], x, x + run);
      x += run;
      if (x > this.columns) break;
      for (const { above, own } of lines) own[x] = this.endOfRun(own[x - 1], above[x], first.run, 0);
      first.run = Math.max(first.run - 1, 0);
      x += 1;
    }
  }

  /** What the three steps around a number look like: 0 where all are flat; negative where signs are exchanged. */
  contextOf(above, own, x) {
    const [a, b, c, d] = [own[x - 1], above[x], above[x - 1], above[x + 1]];
    return 81 * this.stepOf(d - b) + 9 * this.stepOf(b - c) + this.stepOf(c - a);
  }

  stepOf(difference) {
    const size = Math.abs(difference);
    const [t1, t2, t3] = this.steps;
    const step = size <= this.near ? 0 : size < t1 ? 1 : size < t2 ? 2 : size < t3 ? 3 : 4;
    return difference < 0 ? -step : step;
  }

  regular(context, above, own, x) {
    const sign = context < 0 ? -1 : 1;
    const q = Math.abs(context);
    const [a, b, c] = [own[x - 1], above[x], above[x - 1]];
    const edge = c >= Math.max(a, b) ? Math.min(a, b) : c <= Math.min(a, b) ? Math.max(a, b) : a + b - c;
    const expected = Math.min(Math.max(edge + sign * this.shifts[q], 0), this.most);
    const k = this.sizeOf(this.sums[q], this.counts[q]);
    let error = this.bits.golomb(k, this.limit, this.deep);
    error = error & 1 ? -((error + 1) >> 1) : error >> 1;
    if (!this.near && k === 0 && 2 * this.biases[q] <= -this.counts[q]) error = -(error + 1);
    this.learn(q, error);
    return this.rebuilt(expected, sign * error);
  }

  sizeOf(sum, count) {
    let k = 0;
    while (count << k < sum) k += 1;
    if (k > 24) throw damagedJpeg();
    return k;
  }

  learn(q, error) {
    const { sums, biases, shifts, counts } = this;
    biases[q] += error * (2 * this.near + 1);
    sums[q] += Math.abs(error);
    if (counts[q] === this.reset) {
      sums[q] >>= 1;
      biases[q] >>= 1;
      counts[q] >>= 1;
    }
    counts[q] += 1;
    if (biases[q] <= -counts[q]) {
      biases[q] = Math.max(biases[q] + counts[q], 1 - counts[q]);
      shifts[q] = Math.max(shifts[q] - 1, -128);
    } else if (biases[q] > 0) {
      biases[q] = Math.min(biases[q] - counts[q], 0);
      shifts[q] = Math.min(shifts[q] + 1, 127);
    }
  }

  rebuilt(expected, error) {
    let value = expected + error * (2 * this.near + 1);
    if (value < -this.near) value += this.span;
    else if (value > this.most + this.near) value -= this.span;
    return Math.min(Math.max(value, 0), this.most);
  }

  /** How many numbers are like the one before; at most all that are left of the line. */
  runLength(line, left) {
    let length = 0;
    while (this.bits.bit()) {
      const whole = 1 << RUNS[line.run];
      const count = Math.min(whole, left - length);
      length += count;
      if (count === whole) line.run = Math.min(line.run + 1, 31);
      if (length === left) return length;
    }
    length += this.bits.take(RUNS[line.run]);
    if (length > left) throw damagedJpeg();
    return length;
  }

  /** The number that ends a run. `kind` is 0 where all components end it together. */
  endOfRun(a, b, run, kind) {
    const like = kind === null ? Number(Math.abs(a - b) <= this.near) : kind;
    const q = CONTEXTS + like;
    const sum = this.sums[q] + (like ? this.counts[q] >> 1 : 0);
    const k = this.sizeOf(sum, this.counts[q]);
    const coded = this.bits.golomb(k, this.limit - RUNS[run] - 1, this.deep);
    const odd = (coded + like) & 1;
    const size = (coded + like + odd) >> 1;
    const turned = k !== 0 || 2 * this.negatives[like] >= this.counts[q];
    const error = turned === Boolean(odd) ? -size : size;
    if (error < 0) this.negatives[like] += 1;
    this.sums[q] += (coded + 1 - like) >> 1;
    if (this.counts[q] === this.reset) {
      this.sums[q] >>= 1;
      this.counts[q] >>= 1;
      this.negatives[like] >>= 1;
    }
    this.counts[q] += 1;
    return like ? this.rebuilt(a, error) : this.rebuilt(b, b < a ? -error : error);
  }
}

/** The largest number, what steps count as how large, and after how many numbers what was learnt is halved (C.2.4.1.1). */
function preset(segment, near, precision) {
  const word = (at) => segment[at] * 256 + segment[at + 1];
  const given = segment && segment[0] === 1 && segment.length >= 11 ? [1, 3, 5, 7, 9].map(word) : [0, 0, 0, 0, 0];
  if (segment && segment[0] !== 1) throw new Refused("refused.dicom_jpeg_kind");
  const most = given[0] || 2 ** precision - 1;
  const wide = most >= 128;
  const factor = wide ? (Math.min(most, 4095) + 128) >> 8 : Math.floor(256 / (most + 1));
  const usual = [];
  for (const [at, [basic, times]] of [[3, 3], [7, 5], [21, 7]].entries()) {
    const own = wide ? factor * (basic - at - 2) + at + 2 : Math.floor(basic / factor);
    const value = Math.max(own + times * near, wide ? 0 : at + 2);
    const least = at ? usual[at - 1] : near + 1;
    usual.push(value > most || value < least ? least : value);
  }
  const steps = usual.map((one, at) => given[1 + at] || one);
  if (most >= 2 ** precision || near > Math.min(255, most >> 1)) throw damagedJpeg();
  return { most, steps, reset: given[4] || 64 };
}

/** Bits of a scan, in which a bit of zero follows each byte of 255. */
class LsBits {
  constructor(bytes, at) {
    this.bytes = bytes;
    this.at = at;
    this.kept = 0;
    this.count = 0;
  }

  bit() {
    if (!this.count) {
      const byte = this.bytes[this.at];
      const after = this.bytes[this.at - 1] === 0xff;
      if (byte === undefined || (after && byte > 0x7f)) throw damagedJpeg();
      this.count = after ? 7 : 8;
      this.kept = byte;
      this.at += 1;
    }
    this.count -= 1;
    return (this.kept >> this.count) & 1;
  }

  take(wanted) {
    let value = 0;
    for (let one = 0; one < wanted; one++) value = value * 2 + this.bit();
    return value;
  }

  /** A number in Golomb's code, of at most `limit` bits; one that would need more is told in `deep` bits. */
  golomb(k, limit, deep) {
    let zeros = 0;
    while (!this.bit()) {
      zeros += 1;
      if (zeros > limit) throw damagedJpeg();
    }
    return zeros < limit - deep - 1 ? zeros * 2 ** k + this.take(k) : this.take(deep) + 1;
  }

  /** Where the next marker is. */
  marker() {
    while (this.at < this.bytes.length && !(this.bytes[this.at] === 0xff && this.bytes[this.at + 1] > 0x7f)) this.at += 1;
    return this.at;
  }
}
