// A frame's stored values, as numbers that its bits hold, and what kind of colour they are by now.

import { fullToRgb } from "./dicom_colour.js";
import { damagedPixels, encodedFrame, nativeFrame, rleFrame } from "./dicom_frames.js";
import { decodeBaseline } from "./jpeg_baseline.js";
import { decodeLossless } from "./jpeg_lossless.js";
import { decodeLs } from "./jpeg_ls.js";
import { jpegHead, sizeOfJpeg } from "./jpeg_stream.js";
import { Refused } from "./refused.js";

const BEGIN = "1.2.840.10008.1.2.";
const RLE = `${BEGIN}5`;
const MOST_OF_A_SIDE = 65535;
const BASELINE = new Set([`${BEGIN}4.50`, `${BEGIN}4.51`]);
const LOSSLESS = new Set([`${BEGIN}4.57`, `${BEGIN}4.70`]);
const LS = new Set([`${BEGIN}4.80`, `${BEGIN}4.81`]);
const UNREAD = new Map([
  ...["90", "91"].map((end) => [`${BEGIN}4.${end}`, "JPEG 2000"]),
  ...["201", "202", "203"].map((end) => [`${BEGIN}4.${end}`, "High-Throughput JPEG 2000"]),
]);

/**
 * The frame's stored values, colours of a pixel together.
 *
 * @returns {{values: Uint8Array|Int8Array|Uint16Array|Int16Array, kind: string}}
 * @throws {Refused} they are damaged, of another size than the header says, or compressed in a way that is not read.
 */
export function storedFrame(file, frame, frames, shape) {
  if (file.length !== null) {
    const bytes = nativeFrame(file, frame, refuseOdd(shape));
    return finished(numbers(bytes, shape), { ...shape, kind: shape.kind === "YBR_FULL_422" ? "YBR_FULL" : shape.kind });
  }
  if (UNREAD.has(file.syntax)) throw new Refused("refused.dicom_compression", { name: UNREAD.get(file.syntax) });
  if (BASELINE.has(file.syntax) && shape.bits > 8) throw new Refused("refused.dicom_jpeg_of_12_bits");
  const encoded = encodedFrame(file, frame, frames);
  if (file.syntax === RLE) {
    return finished(numbers(rleFrame(encoded, refuseOdd(shape)), shape), { ...shape, planar: 1 });
  }
  refuseOtherSize(encoded, shape);
  refuseOdd(shape);
  const head = jpegHead(encoded);
  const { width, samples, planar } = decoded(file.syntax, encoded, head, shape);
  const told = { ...shape, planar, kind: toldByStream(head, shape, LS.has(file.syntax) || LOSSLESS.has(file.syntax)) };
  return finished(fitted(samples, width, shape), told, LS.has(file.syntax) ? head.precision : null);
}

/** What pydicom's decoders do not take of a header. */
function refuseOdd(shape) {
  const { rows, columns, sign, planar } = shape;
  if (Math.max(rows, columns) > MOST_OF_A_SIDE || ![0, 1].includes(sign) || ![0, 1].includes(planar)) throw damagedPixels();
  return shape;
}

/** A compressed picture of another size than the header's would be decoded in full before anybody saw. */
function refuseOtherSize(encoded, { rows, columns }) {
  const size = sizeOfJpeg(encoded);
  if (size === null) throw new Refused("refused.dicom_fragments_damaged");
  if (size[0] !== rows || size[1] !== columns) {
    const found = `${size[1]}x${size[0]}`;
    throw new Refused("refused.dicom_other_size", { found, said: `${columns}x${rows}` });
  }
}

/** The numbers of a JPEG, the bytes that each takes, and whether they lie plane by plane. */
function decoded(syntax, encoded, head, shape) {
  if (head === null || head.components.length !== shape.samples) throw damagedPixels();
  if (BASELINE.has(syntax)) {
    if (shape.allocated !== 8) throw damagedPixels();
    return { samples: decodeBaseline(encoded), width: 8, planar: 0 };
  }
  const { samples, interleaved } = LOSSLESS.has(syntax) ? decodeLossless(encoded) : decodeLs(encoded);
  const width = head.precision > 8 ? 16 : 8;
  if (head.precision > shape.allocated || (LOSSLESS.has(syntax) && width === 8 && head.precision > shape.bits)) {
    throw damagedPixels();
  }
  return { samples, width, planar: interleaved ? 0 : 1 };
}

/** What the stream says of its colours where it says otherwise than the header. */
function toldByStream({ components, jfif }, { kind, samples }, lossless) {
  if (samples !== 3) return kind;
  const ids = String.fromCharCode(...components.map((one) => one.id));
  if (["RGB", "rgb"].includes(ids)) return "RGB";
  return jfif && !kind.includes("YBR") ? (lossless ? "YBR_FULL" : "YBR_FULL_422") : kind;
}

// -- numbers ------------------------------------------------------------------------------------------------------
function numbers(bytes, { allocated, signed }) {
  if (allocated === 8) return signed ? new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length) : bytes;
  const values = new (signed ? Int16Array : Uint16Array)(bytes.length >> 1);
  for (let at = 0; at < values.length; at++) values[at] = bytes[2 * at] | (bytes[2 * at + 1] << 8);
  return values;
}

/** Decoded numbers of 8 or 16 bits in the kind of array that the header asks for. */
function fitted(samples, width, { allocated, signed }) {
  const narrow = signed ? new (width === 8 ? Int8Array : Int16Array)(samples) : samples;
  const kind = { 8: [Uint8Array, Int8Array], 16: [Uint16Array, Int16Array] }[allocated][Number(signed)];
  return narrow instanceof kind ? narrow : new kind(narrow);
}

/** Colours of a pixel together, bits that hold no number left out, YBR as RGB. `precision` is that of a JPEG-LS stream. */
function finished(values, shape, precision = null) {
  const { allocated, bits, signed } = shape;
  const told = precision !== null && signed ? precision : precision === null ? bits : allocated;
  const together = shape.samples > 1 && shape.planar === 1 ? interleave(values, shape.rows * shape.columns) : values;
  if (told < allocated) {
    const spare = 32 - told;
    const cut = signed ? (one) => (one << spare) >> spare : (one) => (one << spare) >>> spare;
    for (let at = 0; at < together.length; at++) together[at] = cut(together[at]);
  }
  if (shape.kind !== "YBR_FULL" && shape.kind !== "YBR_FULL_422") return { values: together, kind: shape.kind };
  if (!(together instanceof Uint8Array)) throw damagedPixels();
  return { values: fullToRgb(together), kind: "RGB" };
}

function interleave(values, pixels) {
  const together = new values.constructor(values.length);
  for (let at = 0; at < pixels; at++) {
    for (let sample = 0; sample < 3; sample++) together[3 * at + sample] = values[sample * pixels + at];
  }
  return together;
}
