// Where a frame's bytes are, and its stored values where these are not compressed or in runs (RLE), as pydicom takes them.

import { Refused } from "./refused.js";

const ITEM = 0xfffee000;
const END = 0xfffee0dd;
const HEADER = 64; // bytes of a frame's RLE header
const MOST_SEGMENTS = 15;

export const damagedPixels = () => new Refused("refused.dicom_pixels_damaged");
const damagedFragments = () => new Refused("refused.dicom_fragments_damaged");

// -- uncompressed -------------------------------------------------------------------------------------------------
/** The bytes of a frame that is not compressed, colours at half the resolution spread, numbers little-endian. */
export function nativeFrame(file, frame, shape) {
  const halved = shape.kind === "YBR_FULL_422";
  const whole = (shape.rows * shape.columns * shape.samples * shape.allocated) / 8;
  const size = halved ? Math.floor(whole / 3) * 2 : whole;
  const room = Math.min(file.length, file.bytes.length - file.start);
  if (room < size * (frame + 1)) throw new Refused("refused.dicom_truncated");
  const big = file.syntax === "1.2.840.10008.1.2.2";
  const swapped = big && (shape.allocated === 16 || file.vr === "OW");
  const begin = file.start + frame * size;
  const bytes = swapped ? swappedBytes(file, frame * size, size) : file.bytes.slice(begin, begin + size);
  return halved ? spread(bytes, shape) : bytes;
}

/** Bytes of 16-bit words whose halves are exchanged. */
function swappedBytes(file, from, size) {
  const bytes = new Uint8Array(size);
  if (file.start + ((from + size - 1) | 1) >= file.bytes.length) throw damagedPixels();
  for (let at = 0; at < size; at++) bytes[at] = file.bytes[file.start + ((from + at) ^ 1)];
  return bytes;
}

/** Y1 Y2 B R to Y1 B R, Y2 B R. */
function spread(bytes, { rows, columns, allocated }) {
  if (allocated !== 8 || (rows * columns) % 2) throw damagedPixels();
  const out = new Uint8Array((bytes.length / 2) * 3);
  for (let from = 0, to = 0; from < bytes.length; from += 4, to += 6) {
    const [first, second, blue, red] = bytes.subarray(from, from + 4);
    out.set([first, blue, red, second, blue, red], to);
  }
  return out;
}

// -- fragments ----------------------------------------------------------------------------------------------------
/** A frame as it is compressed: by the table of offsets or, without one, by counting or by the marks that end a JPEG. */
export function encodedFrame(file, frame, frames) {
  const { bytes, start } = file;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (start + 8 > bytes.length || tagAt(view, start) !== ITEM) throw damagedFragments();
  const size = view.getUint32(start + 4, true);
  const first = start + 8 + size;
  if (size % 4 || first > bytes.length) throw damagedFragments();
  const offset = (index) => first + view.getUint32(start + 8 + 4 * index, true);
  const count = size / 4;
  if (count) {
    if (frame >= count) throw damagedFragments();
    const end = frame + 1 < count ? offset(frame + 1) : bytes.length;
    return joined(fragments(view, offset(frame), Math.min(end, bytes.length)));
  }
  const all = fragments(view, first, bytes.length);
  if (!all.length) throw damagedFragments();
  if (all.length === 1) return all[frame] ?? missing();
  if (all.length === frames) return all[frame];
  if (frames === 1) return joined(all);
  return byMarks(all, frame);
}

const missing = () => {
  throw damagedFragments();
};

function tagAt(view, at) {
  return view.getUint16(at, true) * 65536 + view.getUint16(at + 2, true);
}

/** Fragments from a place up to what ends them. */
function fragments(view, from, end) {
  const found = [];
  for (let at = from; at + 4 <= end; ) {
    const tag = tagAt(view, at);
    if (tag === END) break;
    if (tag !== ITEM || at + 8 > end) throw damagedFragments();
    const length = view.getUint32(at + 4, true);
    if (length === 0xffffffff) throw damagedFragments();
    found.push(new Uint8Array(view.buffer, view.byteOffset + at + 8, Math.max(Math.min(length, end - at - 8), 0)));
    at += 8 + length;
  }
  return found;
}

function byMarks(all, frame) {
  let number = 0;
  let own = [];
  for (const fragment of all) {
    own.push(fragment);
    const tail = fragment.subarray(-10);
    if (!tail.some((byte, at) => byte === 0xff && tail[at + 1] === 0xd9)) continue;
    if (number === frame) return joined(own);
    number += 1;
    own = [];
  }
  return own.length && number === frame ? joined(own) : missing();
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

// -- runs ---------------------------------------------------------------------------------------------------------
/** The bytes of a frame in runs, plane by plane, numbers little-endian (PS3.5, annex G). */
export function rleFrame(encoded, { rows, columns, samples, allocated }) {
  const pixels = rows * columns;
  const width = allocated / 8;
  if (encoded.length > 2 * pixels * samples * width + 1024) throw new Refused("refused.dicom_longer_than_picture");
  if (encoded.length < HEADER) throw damagedPixels();
  const view = new DataView(encoded.buffer, encoded.byteOffset, HEADER);
  const count = view.getUint32(0, true);
  if (count > MOST_SEGMENTS || count !== samples * width) throw damagedPixels();
  const ends = Array.from({ length: count + 1 }, (_, at) => (at < count ? view.getUint32(4 + 4 * at, true) : encoded.length));
  const decoded = new Uint8Array(pixels * samples * width);
  for (let segment = 0; segment < count; segment++) {
    const sample = Math.floor(segment / width);
    const byte = width - 1 - (segment % width); // the highest comes first
    const plane = decoded.subarray(sample * pixels * width);
    unpackRuns(encoded.subarray(ends[segment], ends[segment + 1]), plane, byte, width, pixels);
  }
  return decoded;
}

function unpackRuns(source, target, offset, step, wanted) {
  let [from, written] = [0, 0];
  while (written < wanted && from < source.length) {
    const head = source[from++];
    if (head === 128) continue;
    const literal = head < 128;
    const length = literal ? head + 1 : 257 - head;
    for (let one = 0; one < length && from < source.length && written < wanted; one++) {
      target[offset + step * written++] = source[literal ? from++ : from];
    }
    if (!literal) from++;
  }
  if (written < wanted) throw damagedPixels();
}
