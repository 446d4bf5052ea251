// What the kinds of JPEG have in common: markers, tables, and the bits of a scan (ITU-T T.81, T.87).

import { Refused } from "./refused.js";

const NO_SIZE = new Set([...Array(10).keys()].map((one) => 0xffd0 + one));
const FRAMES = new Set([...Array(16).keys()].map((one) => 0xffc0 + one).filter((one) => ![0xffc4, 0xffc8, 0xffcc].includes(one)));
FRAMES.add(0xfff7);
const MOST_COMPONENTS = 4;

export const damagedJpeg = () => new Refused("refused.dicom_pixels_damaged");

/** Rows and columns that a JPEG or JPEG-LS stream begins with; null where it does not. */
export function sizeOfJpeg(bytes) {
  const view = viewOf(bytes);
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return null;
  for (let at = 2; bytes.length >= at + 9; ) {
    const marker = view.getUint16(at);
    if (FRAMES.has(marker)) return [view.getUint16(at + 5), view.getUint16(at + 7)];
    if (marker === 0xffff) at += 1; // a filling byte
    else if (marker < 0xff00) return null;
    else at += NO_SIZE.has(marker) ? 2 : 2 + view.getUint16(at + 2);
  }
  return null;
}

/**
 * Segments up to the scan's.
 *
 * @returns {{kind: number, precision: number, rows: number, columns: number, jfif: boolean, adobe: number|null,
 *     components: {id: number, h: number, v: number, quantiser: number}[], quantisers: number[][], tables: Map,
 *     restart: number, segments: Map<number, Uint8Array>, scan: {components: {id: number, dc: number, ac: number}[],
 *     start: number, end: number, low: number}, data: number}|null} the last is where the scan's bits begin; null where it
 *     cannot be read.
 */
export function jpegHead(bytes, from = 2, before = {}) {
  const view = viewOf(bytes);
  const head = { jfif: false, adobe: null, quantisers: [], tables: new Map(), restart: 0, segments: new Map(), ...before };
  for (let at = from; at + 4 <= bytes.length; ) {
    const marker = view.getUint16(at);
    if (marker < 0xff00) return null;
    if (marker === 0xffff || NO_SIZE.has(marker)) {
      if (marker === 0xffd9) return null;
      at += marker === 0xffff ? 1 : 2;
      continue;
    }
    const length = view.getUint16(at + 2);
    const segment = bytes.subarray(at + 4, at + 2 + length);
    if (length < 2 || segment.length < length - 2) return null;
    if (!told(head, marker, segment)) return null;
    at += 2 + length;
    if (marker === 0xffda) return head.components ? { ...head, data: at } : null;
  }
  return null;
}

/** Take in a segment; false where it is damaged. */
function told(head, marker, segment) {
  if (FRAMES.has(marker)) return frameTold(head, marker, segment);
  const begins = (text) => [...text].every((letter, at) => segment[at] === letter.charCodeAt(0));
  if (marker === 0xffe0 && begins("JFIF")) head.jfif = true;
  if (marker === 0xffee && segment.length >= 12 && begins("Adobe")) head.adobe = segment[11];
  if (marker === 0xffc4) return huffmanTold(head, segment);
  if (marker === 0xffdb) return quantisersTold(head, segment);
  if (marker === 0xffdd) head.restart = segment.length === 2 ? segment[0] * 256 + segment[1] : NaN;
  if (marker === 0xffda) return scanTold(head, segment);
  head.segments.set(marker, segment);
  return !Number.isNaN(head.restart);
}

function frameTold(head, marker, segment) {
  const count = segment[5];
  if (head.components || !(count >= 1 && count <= MOST_COMPONENTS) || segment.length !== 6 + 3 * count) return false;
  const [precision, a, b, c, d] = segment;
  const components = Array.from({ length: count }, (_, at) => {
    const [id, sampling, quantiser] = segment.subarray(6 + 3 * at);
    return { id, h: sampling >> 4, v: sampling & 15, quantiser };
  });
  Object.assign(head, { kind: marker, precision, rows: a * 256 + b, columns: c * 256 + d, components });
  return components.every(({ h, v }) => h >= 1 && h <= 4 && v >= 1 && v <= 4);
}

function scanTold(head, segment) {
  const count = segment[0];
  if (!head.components || !(count >= 1 && count <= MOST_COMPONENTS) || segment.length !== 4 + 2 * count) return false;
  const components = Array.from({ length: count }, (_, at) => {
    const [id, tables] = segment.subarray(1 + 2 * at);
    return { id, dc: tables >> 4, ac: tables & 15 };
  });
  const [start, end, low] = segment.subarray(1 + 2 * count);
  head.scan = { components, start, end, low };
  return components.every(({ id }) => head.components.some((one) => one.id === id));
}

function quantisersTold(head, segment) {
  for (let at = 0; at < segment.length; ) {
    const [wide, place] = [segment[at] >> 4, segment[at] & 15];
    const size = 64 * (wide + 1);
    if (wide > 1 || place > 3 || at + 1 + size > segment.length) return false;
    const number = (from) => (wide ? segment[from] * 256 : 0) + segment[from + wide];
    head.quantisers[place] = Array.from({ length: 64 }, (_, k) => number(at + 1 + k * (wide + 1)));
    at += 1 + size;
  }
  return true;
}

function huffmanTold(head, segment) {
  for (let at = 0; at < segment.length; ) {
    const counts = segment.subarray(at + 1, at + 17);
    const total = counts.reduce((sum, one) => sum + one, 0);
    if (counts.length < 16 || total > 256 || at + 17 + total > segment.length) return false;
    const table = huffmanTable(counts, segment.subarray(at + 17, at + 17 + total));
    if (table === null) return false;
    head.tables.set(segment[at], table); // kind in the upper half, 0 of differences and 1 of the rest
    at += 17 + total;
  }
  return true;
}

/** [65536] of what 16 bits begin with: the symbol times 32 and its bits; 0 where with none. */
function huffmanTable(counts, symbols) {
  const table = new Uint16Array(65536);
  let [code, at] = [0, 0];
  for (let length = 1; length <= 16; length++) {
    for (let one = 0; one < counts[length - 1]; one++) {
      const from = code << (16 - length);
      if (from >= 65536) return null;
      table.fill(symbols[at++] * 32 + length, from, from + (1 << (16 - length)));
      code += 1;
    }
    code <<= 1;
  }
  return table;
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Bits of a scan, in which a byte of zero follows each of 255 (T.81, F.2.2.5). Behind its end there are none. */
export class Bits {
  constructor(bytes, at) {
    this.bytes = bytes;
    this.at = at;
    this.kept = 0;
    this.count = 0;
    this.lent = 0; // bits that were made up to look ahead
  }

  fill(wanted) {
    while (this.count < wanted) {
      let byte = this.bytes[this.at];
      if (byte === undefined || (byte === 0xff && this.bytes[this.at + 1] !== 0)) {
        byte = 0;
        this.lent += 8;
      } else {
        this.at += byte === 0xff ? 2 : 1;
      }
      this.kept = ((this.kept << 8) | byte) & 0xffffff;
      this.count += 8;
    }
  }

  take(wanted) {
    if (!wanted) return 0;
    this.fill(wanted);
    this.count -= wanted;
    if (this.count < this.lent) throw damagedJpeg();
    return (this.kept >>> this.count) & ((1 << wanted) - 1);
  }

  symbol(table) {
    this.fill(16);
    const found = table[(this.kept >>> (this.count - 16)) & 0xffff];
    this.count -= found & 31;
    if (!found || this.count < this.lent) throw damagedJpeg();
    return found >> 5;
  }

  /** A number of so many bits with its sign (T.81, F.2.2.1). */
  signed(size) {
    const value = this.take(size);
    return size && value < 2 ** (size - 1) ? value - 2 ** size + 1 : value;
  }

  /** Where the next marker is; behind the end where there is none. */
  marker() {
    while (this.at < this.bytes.length && !(this.bytes[this.at] === 0xff && this.bytes[this.at + 1] !== 0)) this.at += 1;
    return this.at;
  }

  /** Go on behind the marker that begins anew, which must be the one of this number. */
  restart(number) {
    Object.assign(this, { kept: 0, count: 0, lent: 0, at: this.marker() });
    if (this.bytes[this.at + 1] !== 0xd0 + (number & 7)) throw damagedJpeg();
    this.at += 2;
  }
}
