// A DICOM file's elements and their values, as pydicom reads them: what it forgives is forgiven here.

import { Refused } from "./refused.js";

const UNDEFINED = 0xffffffff;
const DEEPEST = 200; // sequences in sequences
const ITEM = 0xfffee000;
const END_OF_ITEM = 0xfffee00d;
const END_OF_SEQUENCE = 0xfffee0dd;

const LONG_VRS = new Set("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split(" ")); // whose lengths take four bytes
export const VRS = new Set([...LONG_VRS, ..."AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split(" ")]);
const BUFFERS = new Set("OB OW OF OD OL OV UN".split(" ")); // representations of plain bytes
const SIZES = { US: 2, SS: 2, UL: 4, SL: 4, FL: 4, FD: 8, SV: 8, UV: 8 };
const WHOLE_TEXTS = new Set(["LT", "ST", "UT", "UR"]); // in which a backslash divides nothing
const NO_NUMBERS = new Set(["SQ", "AT", "PN"]);

/** The elements that are asked for: tag, and the representation where a file does not say it. */
export const TAGS = {
  MediaStorageSOPClassUID: [0x00020002, "UI"],
  TransferSyntaxUID: [0x00020010, "UI"],
  Modality: [0x00080060, "CS"],
  PixelPresentation: [0x00089205, "CS"],
  SamplesPerPixel: [0x00280002, "US"],
  PhotometricInterpretation: [0x00280004, "CS"],
  PlanarConfiguration: [0x00280006, "US"],
  NumberOfFrames: [0x00280008, "IS"],
  Rows: [0x00280010, "US"],
  Columns: [0x00280011, "US"],
  BitsAllocated: [0x00280100, "US"],
  BitsStored: [0x00280101, "US"],
  PixelRepresentation: [0x00280103, "US"],
  PixelPaddingValue: [0x00280120, "US or SS"],
  PixelPaddingRangeLimit: [0x00280121, "US or SS"],
  WindowCenter: [0x00281050, "DS"],
  WindowWidth: [0x00281051, "DS"],
  RescaleIntercept: [0x00281052, "DS"],
  RescaleSlope: [0x00281053, "DS"],
  RescaleType: [0x00281054, "LO"],
  VOILUTFunction: [0x00281056, "CS"],
  RedPaletteColorLookupTableDescriptor: [0x00281101, "US or SS"],
  GreenPaletteColorLookupTableDescriptor: [0x00281102, "US or SS"],
  BluePaletteColorLookupTableDescriptor: [0x00281103, "US or SS"],
  RedPaletteColorLookupTableData: [0x00281201, "OW"],
  GreenPaletteColorLookupTableData: [0x00281202, "OW"],
  BluePaletteColorLookupTableData: [0x00281203, "OW"],
  SegmentedRedPaletteColorLookupTableData: [0x00281221, "OW"],
  SegmentedGreenPaletteColorLookupTableData: [0x00281222, "OW"],
  SegmentedBluePaletteColorLookupTableData: [0x00281223, "OW"],
  ModalityLUTSequence: [0x00283000, "SQ"],
  LUTDescriptor: [0x00283002, "US or SS"],
  LUTData: [0x00283006, "US or OW"],
  VOILUTSequence: [0x00283010, "SQ"],
  FrameVOILUTSequence: [0x00289132, "SQ"],
  PixelValueTransformationSequence: [0x00289145, "SQ"],
  EncapsulatedDocument: [0x00420011, "OB"],
  SharedFunctionalGroupsSequence: [0x52009229, "SQ"],
  PerFrameFunctionalGroupsSequence: [0x52009230, "SQ"],
};
const DESCRIPTORS = new Set([0x00281101, 0x00281102, 0x00281103, 0x00283002]);

export const damagedFile = () => new Refused("refused.dicom_damaged");
export class EndOfFile extends Error {}

// -- elements -----------------------------------------------------------------------------------------------------
export class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  get left() {
    return this.bytes.length - this.at;
  }

  need(count) {
    if (this.left < count) throw damagedFile();
  }

  tagAt(at, little) {
    return this.view.getUint16(at, little) * 65536 + this.view.getUint16(at + 2, little);
  }

  letters(at) {
    return String.fromCharCode(this.bytes[at], this.bytes[at + 1]);
  }
}

/** The elements of a file, of its group 2, or of an item of a sequence: by tag, unparsed until asked for. */
class Elements {
  constructor(little, root) {
    this.elements = new Map();
    this.little = little;
    this.root = root ?? this;
  }

  has(name) {
    return this.elements.has(TAGS[name][0]);
  }

  /** The element with the representation that its value is taken by. */
  get(name) {
    const [tag, known] = TAGS[name];
    const element = this.elements.get(tag);
    if (!element) return undefined;
    const untold = !element.vr || (element.vr === "UN" && element.bytes.length < 0xffff); // of those with items it is SQ
    const vr = untold ? known : element.vr;
    if (vr === "US or SS") return { ...element, tag, vr: numberOf(this.root, "PixelRepresentation", 0) === 0 ? "US" : "SS" };
    return { ...element, tag, vr, told: !untold };
  }
}

/** Elements until one that stops, the end, or `length` bytes. */
export function readDataset(file, { implicit, little, length = null, stop = null, top = false, root = null, depth = 0 }) {
  if (depth > DEEPEST) throw damagedFile();
  const found = new Elements(little, root);
  const begin = file.at;
  const how = { implicit: looksImplicit(file, implicit, little, stop, top), little, stop, root: found.root, depth };
  try {
    while (length === null || file.at - begin < length) {
      const element = readElement(file, how);
      if (element === null) break;
      found.elements.set(element.tag, element);
    }
  } catch (error) {
    if (!(error instanceof EndOfFile)) throw error; // what was read before the end is kept
  }
  return found;
}

/** Whether elements have no representation. Some writers change over to the other way, sequences to implicit alone. */
function looksImplicit(file, assumed, little, stop, top) {
  if ((!top && assumed) || file.left < 6) return assumed;
  const capital = (byte) => byte > 0x40 && byte < 0x5b;
  return !(capital(file.bytes[file.at + 4]) && capital(file.bytes[file.at + 5]));
}

/** The next element, null at the end. */
function readElement(file, { implicit, little, stop, root, depth }) {
  const head = file.at;
  if (file.left < 8) {
    file.at = file.bytes.length;
    return null;
  }
  const tag = file.tagAt(head, little);
  let length = file.view.getUint32(head + 4, little);
  let vr = "";
  file.at += 8;
  if (!implicit) {
    const letters = file.letters(head + 4);
    if (VRS.has(letters) || (letters >= "AA" && letters <= "ZZ")) {
      vr = letters;
      length = file.view.getUint16(head + 6, little);
      if (LONG_VRS.has(vr)) {
        file.need(4);
        length = file.view.getUint32(head + 8, little);
        file.at += 4;
      }
    }
  }
  if (tag === END_OF_ITEM) return null;
  if (stop?.(tag)) {
    file.at = head;
    return null;
  }
  const element = { tag, vr, implicit, little };
  if (length !== UNDEFINED) {
    element.bytes = file.bytes.subarray(file.at, file.at + length);
    file.at += element.bytes.length;
    return element;
  }
  const items = file.left >= 4 && file.tagAt(file.at, little) === ITEM;
  if (vr === "SQ" || vr === "UN" || (!vr && items)) {
    element.vr = "SQ";
    element.items = readItems(file, { implicit, little, length: null, root, depth });
    return element;
  }
  element.bytes = readFragments(file, little);
  return element;
}

function readItems(file, { implicit, little, length, root, depth }) {
  const items = [];
  const begin = file.at;
  while (length === null || file.at - begin < length) {
    file.need(8);
    const tag = file.tagAt(file.at, little);
    const size = file.view.getUint32(file.at + 4, little);
    file.at += 8;
    if (tag === END_OF_SEQUENCE) break;
    const how = { implicit, little, length: size === UNDEFINED ? null : size, root, depth: depth + 1 };
    items.push(readDataset(file, how));
  }
  return items;
}

/** The value of an element without length: in fragments, or whatever comes before the mark that ends it. */
function readFragments(file, little) {
  const begin = file.at;
  let at = begin;
  while (at + 8 <= file.bytes.length && file.tagAt(at, little) === ITEM) at += 8 + file.view.getUint32(at + 4, little);
  if (!(at + 4 <= file.bytes.length && file.tagAt(at, little) === END_OF_SEQUENCE)) {
    at = begin;
    while (at + 4 <= file.bytes.length && file.tagAt(at, little) !== END_OF_SEQUENCE) at += 1;
    if (at + 4 > file.bytes.length) throw new EndOfFile();
  }
  file.at = Math.min(at + 8, file.bytes.length);
  return file.bytes.subarray(begin, at);
}

// -- values -------------------------------------------------------------------------------------------------------
export const asText = (bytes) => {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text.replace(/[ \0]+$/, "");
};

/** An element's text; `otherwise` where it is missing or empty. What is no text is none that anybody asks for. */
export function textOf(header, name, otherwise = "") {
  const element = header.get(name);
  if (!element || !VRS.has(element.vr) || !element.bytes?.length) return otherwise;
  if (SIZES[element.vr] || BUFFERS.has(element.vr)) return "?";
  return asText(element.bytes) || otherwise;
}

/** All of an element's numbers, in a representation of numbers; null where it has another. */
export function integersOf(header, name) {
  const element = header.get(name);
  const size = SIZES[element?.vr];
  if (!size || !element.bytes?.length || element.bytes.length % size) return null;
  const view = new DataView(element.bytes.buffer, element.bytes.byteOffset, element.bytes.length);
  const get = {
    US: "getUint16", SS: "getInt16", UL: "getUint32", SL: "getInt32",
    FL: "getFloat32", FD: "getFloat64", SV: "getBigInt64", UV: "getBigUint64",
  }[element.vr];
  const numbers = [];
  for (let at = 0; at < element.bytes.length; at += size) numbers.push(Number(view[get](at, element.little)));
  if (DESCRIPTORS.has(element.tag) && element.told && numbers.length > 1 && numbers[0] < 0) numbers[0] += 65536;
  return numbers;
}

/** The first of an element's numbers; `otherwise` where it has none. */
export function numberOf(header, name, otherwise = null) {
  const element = header.get(name);
  if (!element?.bytes?.length || !VRS.has(element.vr) || NO_NUMBERS.has(element.vr)) return otherwise;
  const numbers = integersOf(header, name);
  if (numbers) return numbers[0];
  if (BUFFERS.has(element.vr)) return element.bytes[0];
  const text = asText(element.bytes);
  const number = parsed(WHOLE_TEXTS.has(element.vr) ? text : text.split("\\")[0]);
  return number === null || (element.vr === "IS" && Math.abs(number) === Infinity) ? otherwise : number;
}

/** A number as Python reads one; null where the text is none. */
function parsed(text) {
  const bare = text.trim().toLowerCase().replace(/(?<=\d)_(?=\d)/g, "");
  if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/.test(bare)) return Number(bare);
  if (/^[+-]?inf(inity)?$/.test(bare)) return bare[0] === "-" ? -Infinity : Infinity;
  return /^[+-]?nan$/.test(bare) ? NaN : null;
}

/** An element's bytes, null where it has none or is of numbers or text. */
export function bytesOf(header, name) {
  const element = header.get(name);
  const buffer = element && (BUFFERS.has(element.vr) || element.vr === "US or OW");
  return buffer && element.bytes?.length ? element.bytes : null;
}

/** A sequence's items; none where it is missing or cannot be parsed. */
export function sequenceOf(header, name) {
  const element = header.get(name);
  if (element?.vr !== "SQ") return [];
  const kept = header.elements.get(element.tag);
  kept.items ??= itemsOf(element, header.root);
  return kept.items;
}

function itemsOf({ bytes, implicit, little }, root) {
  try {
    return readItems(new Reader(bytes), { implicit, little, length: bytes.length, root, depth: 0 });
  } catch (error) {
    if (error instanceof Refused || error instanceof RangeError) return [];
    throw error;
  }
}
