// A DICOM file up to its pixels, within stated limits, as stillroom/data/dicom/opening.py reads it. Nothing of a file's text
// gets into a reason.

import { asText, damagedFile, EndOfFile, numberOf, readDataset, Reader, textOf, VRS } from "./dicom_elements.js";
import { inflate, NotDeflated } from "./inflate.js";
import { Refused } from "./refused.js";

export const MOST_FRAMES = 100_000; // of one file
const MOST_INFLATED = 2 ** 29; // bytes that a deflated file may unpack to

const DEFLATED = "1.2.840.10008.1.2.1.99";
const UNDEFINED = 0xffffffff;
const LEAST_SHARE = 2 / 3; // of a frame's bytes, where colours are stored at half the resolution
const PIXELS = new Map([[0x7fe00010, false], [0x7fe00008, true], [0x7fe00009, true]]); // whether they are floating-point
const LONG_VRS = new Set("OB OW OF OD OL OV UN UT".split(" ")); // that pixels, or elements of group 2, may have
const FIRST_VRS = new Set("AE AS CS DA DT IS LO LT OB OW PN SH SQ ST TM UI UL UN US UT".split(" "));

// -- opening ------------------------------------------------------------------------------------------------------
/**
 * Read a file up to its pixels.
 *
 * @returns {{header: Elements, meta: Elements, bytes: Uint8Array, start: number|null, length: number|null,
 *     vr: string, floating: boolean, syntax: string}} where the pixels' value begins and how long it is in bytes, null
 *     where it is in fragments.
 * @throws {Refused} it is damaged, or unpacks to more than MOST_INFLATED.
 */
export function openDicom(bytes) {
  try {
    return opened(inflated(bytes));
  } catch (error) {
    if ([EndOfFile, NotDeflated, RangeError].some((kind) => error instanceof kind)) throw damagedFile();
    throw error;
  }
}

function opened(bytes) {
  const file = new Reader(bytes);
  const begin = marked(bytes) ? 132 : 0;
  const notMeta = (tag) => tag >>> 16 !== 2;
  file.at = begin;
  let meta = readDataset(file, { implicit: false, little: true, stop: notMeta, top: true });
  const [first] = meta.elements.values();
  if (first?.vr && !VRS.has(first.vr)) {
    file.at = begin;
    meta = readDataset(file, { implicit: true, little: true, stop: notMeta, top: true });
  }
  const command = readDataset(file, { implicit: true, little: true, stop: (tag) => tag >>> 16 !== 0, top: true });
  const named = meta.has("TransferSyntaxUID") ? textOf(meta, "TransferSyntaxUID", "") : null;
  if (named !== null && !VRS.has(meta.get("TransferSyntaxUID").vr)) throw damagedFile();
  const [implicit, little] = file.at >= bytes.length ? [true, true] : encodingOf(file, named);
  const header = readDataset(file, { implicit, little, stop: (tag) => PIXELS.has(tag), top: true });
  for (const [tag, element] of command.elements) header.elements.set(tag, element);
  const guessed = implicit ? "1.2.840.10008.1.2" : little ? "1.2.840.10008.1.2.1" : "1.2.840.10008.1.2.2";
  return { header, meta, bytes, syntax: named || guessed, ...pixelsAt(file, implicit, little) };
}

/** Implicit or not, little-endian or not: as the syntax says or, without one, as the next element looks. */
function encodingOf(file, syntax) {
  if (syntax === null) {
    file.need(6);
    const explicit = VRS.has(file.letters(file.at + 4));
    return [!explicit, !(explicit && file.view.getUint16(file.at, true) >= 1024)];
  }
  if (syntax === "1.2.840.10008.1.2") return [true, true];
  return [false, syntax !== "1.2.840.10008.1.2.2"];
}

function pixelsAt(file, implicit, little) {
  const none = { start: null, length: null, vr: "", floating: false };
  const { at, view } = file;
  if (file.left < 8) return none;
  const floating = PIXELS.get(file.tagAt(at, little));
  if (floating === undefined) return none;
  const letters = file.letters(at + 4);
  const value = (start, length, vr) => ({ start, length: length === UNDEFINED ? null : length, vr, floating });
  if (implicit || !/^[A-Za-z]{2}$/.test(letters)) return value(at + 8, view.getUint32(at + 4, little), "OW");
  if (!LONG_VRS.has(letters) || file.left < 12) throw damagedFile();
  return value(at + 12, view.getUint32(at + 8, little), letters);
}

function marked(bytes) {
  return bytes.length >= 132 && String.fromCharCode(...bytes.subarray(128, 132)) === "DICM";
}

/** Whether bytes begin as DICOM does: with DICM at byte 128, or by a first element as old files without preamble have. */
export function isDicom(bytes) {
  if (marked(bytes)) return true;
  if (bytes.length < 8) return false;
  const file = new Reader(bytes);
  return [true, false].some((little) => {
    const tag = file.tagAt(0, little);
    if (![0x0002, 0x0008].includes(tag >>> 16) || (tag & 0xffff) > 0x0100) return false;
    const letters = file.letters(4);
    if (FIRST_VRS.has(letters)) return true;
    const length = file.view.getUint32(4, little);
    return little && length > 0 && length <= 1024 && length % 2 === 0;
  });
}

/** How many frames a file has, at least 1. Of those that it claims and cannot hold, one is left and says so when read. */
export function framesIn(file) {
  const claimed = numberOf(file.header, "NumberOfFrames", 1) || 1;
  if (file.start === null || !(claimed > 1 && claimed <= MOST_FRAMES)) return 1;
  let least = 8; // bytes of a fragment that holds nothing
  if (file.length !== null) {
    const sides = ["Rows", "Columns", "SamplesPerPixel", "BitsAllocated"].map((name) => numberOf(file.header, name, 1) || 1);
    least = Math.max((sides.reduce((product, side) => product * side, 1) / 8) * LEAST_SHARE, least);
  }
  const room = file.bytes.length - file.start;
  return Math.min(Math.trunc(claimed), Math.floor(room / least) + 1);
}

// -- deflated files -----------------------------------------------------------------------------------------------
/** A file of the deflated syntax unpacked, any other as it is. */
function inflated(bytes) {
  const [syntax, end] = metaOf(new Reader(bytes.subarray(0, 4096)));
  if (syntax !== DEFLATED) return bytes;
  const content = inflate(bytes.subarray(end), MOST_INFLATED);
  if (content.length > MOST_INFLATED) {
    throw new Refused("refused.dicom_inflated", { megabytes: Math.round(MOST_INFLATED / 1e6) });
  }
  const plain = new Uint8Array(132 + 28 + content.length);
  plain.set(new TextEncoder().encode("DICM"), 128);
  plain.set([2, 0, 0x10, 0, 0x55, 0x49, 20, 0], 132); // (0002,0010) UI, 20 bytes long
  plain.set(new TextEncoder().encode("1.2.840.10008.1.2.1"), 140);
  plain.set(content, 160);
  return plain;
}

/** The transfer syntax that group 2 names, and where the group ends. */
function metaOf(head) {
  let at = marked(head.bytes) ? 132 : 0;
  let syntax = "";
  while (head.bytes.length >= at + 12) {
    const tag = head.tagAt(at, true);
    if (tag >>> 16 !== 2) break;
    const long = LONG_VRS.has(head.letters(at + 4));
    const size = long ? 12 : 8;
    const length = long ? head.view.getUint32(at + 8, true) : head.view.getUint16(at + 6, true);
    if (tag === 0x00020010) syntax = asText(head.bytes.subarray(at + size, at + size + length));
    at += size + length;
  }
  return [syntax, at];
}
