// Lossless JPEG with Huffman codes (ITU-T T.81, annex H; process 14).

import { Bits, damagedJpeg, jpegHead } from "./jpeg_stream.js";
import { Refused } from "./refused.js";

/** What a number is expected to be by those before it, above it and before that one (table H.1). */
const PREDICTORS = [
  null,
  (a) => a,
  (a, b) => b,
  (a, b, c) => c,
  (a, b, c) => a + b - c,
  (a, b, c) => a + ((b - c) >> 1),
  (a, b, c) => b + ((a - c) >> 1),
  (a, b) => (a + b) >> 1,
];

/**
 * @param {Uint8Array} bytes
 * @returns {{samples: Uint16Array, interleaved: true}} row by row, colours of a pixel together
 * @throws {Refused} it is damaged, or of another kind.
 */
export function decodeLossless(bytes) {
  let head = jpegHead(bytes);
  if (head === null) throw damagedJpeg();
  const { kind, components, precision, rows, columns } = head;
  if (kind !== 0xffc3) throw new Refused("refused.dicom_jpeg_kind");
  if (!(precision >= 2 && precision <= 16) || !rows || !columns) throw damagedJpeg();
  if (components.some(({ h, v }) => h !== components[0].h || v !== components[0].v)) throw new Refused("refused.dicom_jpeg_kind");
  const samples = new Uint16Array(rows * columns * components.length);
  const read = new Set();
  for (;;) {
    const at = readScan(bytes, head, samples, read);
    if (read.size === components.length) return { samples, interleaved: true };
    head = jpegHead(bytes, at, { ...head });
    if (head === null) throw damagedJpeg();
  }
}

/** One scan's numbers into their places; gives where it ends. */
function readScan(bytes, { scan, components, tables, restart, precision, rows, columns, data }, samples, read) {
  const predict = PREDICTORS[scan.start];
  if (!predict || scan.low >= precision || (restart && restart % columns)) throw damagedJpeg();
  const every = restart / columns; // lines
  const count = components.length;
  const placeOf = (id) => components.findIndex((one) => one.id === id);
  const parts = scan.components.map(({ id, dc }) => ({ place: placeOf(id), table: tables.get(dc) }));
  if (parts.some(({ place, table }) => !table || read.has(place))) throw damagedJpeg();
  const bits = new Bits(bytes, data);
  const line = columns * count;
  const low = scan.low & 15;
  for (let y = 0; y < rows; y++) {
    const fresh = every ? y % every === 0 : y === 0;
    if (fresh && y) bits.restart(y / every - 1);
    for (let x = 0; x < columns; x++) {
      for (const { place, table } of parts) {
        const at = y * line + x * count + place;
        const [before, above] = [samples[at - count], samples[at - line]];
        let expected;
        if (x && fresh) expected = before;
        else if (x) expected = predict(before, above, samples[at - line - count]);
        else expected = fresh ? 2 ** (precision - low - 1) : above;
        const size = bits.symbol(table);
        if (size > 16) throw damagedJpeg();
        samples[at] = expected + (size === 16 ? 32768 : bits.signed(size));
      }
    }
  }
  for (const { place } of parts) {
    read.add(place);
    if (low) for (let at = place; at < samples.length; at += count) samples[at] <<= low;
  }
  return bits.marker();
}
