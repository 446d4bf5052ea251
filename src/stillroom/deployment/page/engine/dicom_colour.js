// Colours of DICOM frames as RGB, in the arithmetic of stillroom/data/dicom/decoding.py and of pydicom.

import { bytesOf, integersOf, textOf } from "./dicom_elements.js";
import { halfToEven, words } from "./dicom_grey.js";
import { Refused } from "./refused.js";

const PLANES = ["Red", "Green", "Blue"];
const MOST_ENTRIES = 65536;

/** RGB of 8 bits as they are, of more bits spread to white. */
export function colourPixels(values, bits, white) {
  if (values instanceof Int8Array || values instanceof Int16Array) throw new Refused("refused.dicom_signed_colour");
  const top = bits === 8 || values instanceof Uint8Array ? 255 : white;
  const most = 2 ** bits - 1;
  const data = top === 255 ? new Uint8Array(values) : new Uint16Array(values);
  if (most === top) return data;
  for (let at = 0; at < data.length; at++) data[at] = halfToEven(Math.min(values[at], most) * (top / most));
  return data;
}

/** Full-range YBR to RGB: each sum in single precision, a product and its sum rounded once, as processors multiply. */
export function fullToRgb(values) {
  const { fround } = Math;
  const [red, green, alsoGreen, blue] = [1.402, (-0.114 * 1.772) / 0.587, (-0.299 * 1.402) / 0.587, 1.772].map(fround);
  const byte = (sum) => Math.min(Math.max(Math.floor(fround(sum + 0.5)), 0), 255);
  const out = new Uint8Array(values.length);
  for (let at = 0; at < out.length; at += 3) {
    const [y, b, r] = [values[at], values[at + 1] - 128, values[at + 2] - 128];
    out[at] = byte(fround(y + red * r));
    out[at + 1] = byte(fround(fround(y + green * b) + alsoGreen * r));
    out[at + 2] = byte(fround(y + blue * b));
  }
  return out;
}

// -- palettes -----------------------------------------------------------------------------------------------------
/** RGB of 8 bits of the places in a palette (PS3.3, C.7.6.3.1.5). */
export function palettePixels(header, values) {
  const plain = header.has("RedPaletteColorLookupTableData");
  const planes = plain ? PLANES.map((name) => plainPlane(header, name, values)) : segmentedPlanes(header, values);
  const out = new Uint8Array(3 * values.length);
  const wide = planes.some((plane) => plane.wide);
  let most = 0;
  planes.forEach(({ table, place }, sample) => {
    for (let at = 0; at < values.length; at++) {
      const entry = table[place(values[at])];
      if (entry === undefined) throw damagedPalette();
      most = Math.max(most, entry);
      out[3 * at + sample] = wide ? entry >> 8 : entry;
    }
  });
  if (wide && most > 0 && most < 256) throw new Refused("refused.dicom_black_palette");
  return out;
}

const damagedPalette = () => new Refused("refused.dicom_palette");

function described(header, name) {
  const numbers = integersOf(header, `${name}PaletteColorLookupTableDescriptor`);
  if (numbers?.length !== 3) throw damagedPalette();
  return [numbers[0] || MOST_ENTRIES, numbers[1], numbers[2]];
}

function plainPlane(header, name, values) {
  const [count, first] = described(header, name);
  const data = bytesOf(header, `${name}PaletteColorLookupTableData`);
  if (data === null || count < 1) throw damagedPalette();
  const wide = data.length >= 2 * count;
  const table = wide ? words(data.subarray(0, 2 * count), header.little) : bytesInWords(data, header.little);
  if (table.length < count) throw damagedPalette();
  return { table, wide, place: (value) => Math.min(Math.max(value - first, 0), count - 1) };
}

/** Bytes, two in a word. */
function bytesInWords(data, little) {
  const even = data.subarray(0, data.length - (data.length % 2));
  return little ? even : even.map((_, at) => even[at ^ 1]);
}

/** Tables that are told in segments (PS3.3, C.7.9.2); the first one's descriptor is everyone's. */
function segmentedPlanes(header, values) {
  if (["MIXED", "COLOR"].includes(textOf(header, "PixelPresentation"))) throw damagedPalette();
  const [count, first, depth] = described(header, "Red");
  if (![8, 16].includes(depth) || count - 1 >= 2 ** depth) throw damagedPalette();
  const tables = PLANES.map((name) => {
    const data = bytesOf(header, `Segmented${name}PaletteColorLookupTableData`);
    if (data === null || (depth === 16 && data.length % 2)) throw damagedPalette();
    return expanded(depth === 8 ? data : words(data, header.little), { depth, little: header.little });
  });
  if (tables.some((table) => table.length !== tables[0].length)) throw damagedPalette();
  const place = (value) => (value < first ? 0 : Math.min((value - first) % 2 ** depth, count - 1));
  return tables.map((table) => ({ table, wide: depth === 16, place }));
}

/** At most `segments` of a table's segments: numbers one by one, straight lines, and segments told before. */
function expanded(data, { depth, little, segments = Infinity, last = 0, nested = 0 }) {
  const table = [];
  if (nested > 8) throw damagedPalette();
  let at = 0;
  const next = () => {
    if (at >= data.length) throw damagedPalette();
    return data[at++];
  };
  for (let segment = 0; segment < segments && at + 1 < data.length; segment++) {
    const [kind, length] = [next(), next()];
    if (kind === 0) {
      table.push(...data.slice(at, at + length));
      at += length;
    } else if (kind === 1) {
      const from = table.length ? table[table.length - 1] : last;
      if (!table.length && !last) throw damagedPalette();
      table.push(...line(from, next(), length));
    } else if (kind === 2 && table.length) {
      const told = Array.from({ length: depth === 8 ? 4 : 2 }, next);
      const [a, b, c, d] = little ? [3, 2, 1, 0] : [2, 3, 0, 1];
      const bytes = ((told[a] << 24) | (told[b] << 16) | (told[c] << 8) | told[d]) >>> 0;
      const where = depth === 8 ? bytes : told[1] * 65536 + told[0];
      const rest = { depth, little, segments: length || Infinity, last: table[table.length - 1], nested: nested + 1 };
      table.push(...expanded(data.slice(where), rest));
    } else {
      throw damagedPalette();
    }
    if (table.length > MOST_ENTRIES) throw damagedPalette();
  }
  return table;
}

/** Whole numbers on the line behind `from` up to `to`, in the steps of numpy's linspace. */
function line(from, to, length) {
  if (from === to) return new Array(length).fill(to);
  if (!length) throw damagedPalette();
  const start = from + (to - from) / length;
  const step = (to - start) / (length - 1);
  const end = length > 1 ? length - 1 : -1; // of one number the first is told
  return Array.from({ length }, (_, at) => halfToEven(at === end ? to : length > 1 ? start + at * step : start));
}
