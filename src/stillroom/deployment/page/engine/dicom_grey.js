// From stored grey values to what is shown: modality, then VOI, then presentation, in the steps of
// stillroom/data/dicom/grey.py, each in the same arithmetic. The result is a table over every value that can be stored.

import { bytesOf, integersOf, numberOf, sequenceOf, textOf } from "./dicom_elements.js";
import { Refused } from "./refused.js";

/**
 * What each stored value is shown as.
 *
 * @param {Elements} header
 * @param {number} frame from 0
 * @param {number} bits that are stored, at most 16
 * @param {boolean} signed whether stored values are
 * @param {{window: {centre: number, width: number, name: string}|null, white: number}} display
 * @returns {{low: number, table: Uint8Array|Uint16Array, own: object|null}} the least value that can be stored; what it and
 *     those above it are shown as: of 8 bits where these hold all that there is to show or white is 255; and how the file
 *     itself wants the frame to be shown.
 */
export function greyTable(header, frame, bits, signed, { window, white }) {
  const low = signed ? -(2 ** (bits - 1)) : 0;
  const levels = Float64Array.from({ length: 2 ** bits }, (_, step) => low + step);
  const { values, black: least, white: most } = modality(header, frame, levels);
  const voi = group(header, frame, "FrameVOILUTSequence") ?? header;
  const shown = shownBy(header, voi, window);
  const own = window ? ownDisplay(header, voi) : shown;
  const inverted = textOf(header, "PhotometricInterpretation") === "MONOCHROME1";
  const share = shares(values, shown, voi, inverted, [least, most]);
  blacken(share, header, levels, signed);
  if (share.some(Number.isNaN)) throw new Refused("refused.dicom_beyond");
  const plain = bits <= 8 && shown.by === "range" && !sequenceOf(header, "ModalityLUTSequence").length;
  const top = plain ? 255 : white;
  const table = top === 255 ? new Uint8Array(share.length) : new Uint16Array(share.length);
  share.forEach((one, place) => (table[place] = halfToEven(Math.min(Math.max(one, 0), 1) * top)));
  return { low, table, own };
}

/** The nearest whole number and, of two that are as near, the even one. */
export function halfToEven(number) {
  const floor = Math.floor(number);
  const rest = number - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}

// -- VOI ----------------------------------------------------------------------------------------------------------
/** What decides how a frame is shown: the window asked for, the file's table or window, or the whole range. */
function shownBy(header, voi, window) {
  if (window) {
    if (window.name) refuseWithoutUnits(header, window);
    return { by: "asked", ...window };
  }
  if (sequenceOf(voi, "VOILUTSequence").length) return { by: "table" };
  const [centre, width] = [numberOf(voi, "WindowCenter"), numberOf(voi, "WindowWidth")];
  if (centre === null || width === null) return { by: "range" };
  const told = functionOf(voi);
  const least = told === "LINEAR" ? 1 : 0;
  if (!Number.isFinite(centre) || !Number.isFinite(width) || width < least || width === 0) {
    throw new Refused("refused.dicom_window_width");
  }
  return { by: "window", centre, width, function: told };
}

/** The same where no window is asked for; null where the file's own has no width. */
function ownDisplay(header, voi) {
  try {
    return shownBy(header, voi, null);
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}

/** 0 is black and 1 white, of every value. */
function shares(values, shown, voi, inverted, range) {
  const told = shown.by === "window" ? functionOf(voi) : "LINEAR";
  if (shown.by === "table" || told === "SIGMOID") {
    const of = shown.by === "table" ? tabled(values, voi) : sigmoid(shown);
    return values.map((value) => (inverted ? 1 - of(value) : of(value)));
  }
  let [black, white] = range;
  if (shown.by !== "range") {
    const exact = told === "LINEAR_EXACT";
    const [centre, width] = exact ? [shown.centre, shown.width] : [shown.centre - 0.5, shown.width - 1];
    [black, white] = [centre - width / 2, centre + width / 2];
  }
  if (inverted) [black, white] = [white, black];
  if (black === white) return values.map((value) => (value > black ? 1 : 0)); // a window of width 1: a threshold
  return values.map((value) => (value - black) / (white - black));
}

function tabled(values, voi) {
  const table = tableOf(sequenceOf(voi, "VOILUTSequence")[0], values.some((value) => value < 0));
  return (value) => table.of(value) / table.top;
}

function sigmoid({ centre, width }) {
  return (value) => 1 / (1 + Math.exp(Math.min(Math.max((-4 * (value - centre)) / width, -700), 700)));
}

/** What is none of the functions that there are counts as the first, the default. */
function functionOf(voi) {
  const told = textOf(voi, "VOILUTFunction", "LINEAR").trim().toUpperCase();
  return ["LINEAR_EXACT", "SIGMOID"].includes(told) ? told : "LINEAR";
}

// -- modality -----------------------------------------------------------------------------------------------------
/** The levels in the image's own units, and which of these the lowest and highest that it can have are. */
function modality(header, frame, levels) {
  const [item] = sequenceOf(header, "ModalityLUTSequence");
  if (item) {
    const table = tableOf(item, levels[0] < 0);
    return { values: levels.map(table.of), black: 0, white: table.top };
  }
  const where = group(header, frame, "PixelValueTransformationSequence") ?? header;
  const [slope, intercept] = [numberOf(where, "RescaleSlope", 1), numberOf(where, "RescaleIntercept", 0)];
  const values = levels.map((level) => level * slope + intercept);
  const [first, last] = [values[0], values[values.length - 1]];
  if (slope === 0 || ![slope, intercept, first, last].every(Number.isFinite)) throw new Refused("refused.dicom_rescale");
  return { values, black: Math.min(first, last), white: Math.max(first, last) };
}

/** A lookup table; its entries may be packed in bytes, words, or given as numbers. */
function tableOf(item, signed) {
  const damaged = () => new Refused("refused.dicom_lut");
  const descriptor = integersOf(item, "LUTDescriptor");
  if (descriptor?.length !== 3) throw damaged();
  const count = Math.trunc(descriptor[0]) || 65536;
  let [first, bits] = descriptor.slice(1).map(Math.trunc);
  if (signed && first > 32767) first -= 65536;
  const data = bytesOf(item, "LUTData");
  const given = data === null ? integersOf(item, "LUTData") : data.length >= 2 * count ? words(data, item.little) : [...data];
  const entries = (given ?? []).slice(0, count);
  if (entries.length < count || !entries.length || !(bits >= 8 && bits <= 16)) throw damaged();
  const [least, most] = entries.reduce(([low, high], one) => [Math.min(low, one), Math.max(high, one)], [0, 0]);
  if (least < 0) throw damaged();
  if (most > 2 ** bits - 1) bits = 16; // some writers state the image's bits
  const last = entries.length - 1;
  const of = (value) => entries[Math.min(Math.max(halfToEven(value) - first, 0), last)];
  return { of, top: 2 ** bits - 1 };
}

/** The 16-bit numbers that bytes hold. */
export function words(bytes, little) {
  const [low, high] = little ? [0, 1] : [1, 0];
  return Array.from({ length: bytes.length >> 1 }, (_, place) => bytes[2 * place + low] + 256 * bytes[2 * place + high]);
}

/** Values that stand for no picture are shown black. */
function blacken(share, header, levels, signed) {
  const value = numberOf(header, "PixelPaddingValue");
  if (value === null || sequenceOf(header, "PerFrameFunctionalGroupsSequence").length) return;
  const ends = [value, numberOf(header, "PixelPaddingRangeLimit", value)];
  const [first, last] = ends.map((end) => (signed && end > 32767 ? end - 65536 : end)).sort((a, b) => a - b);
  levels.forEach((level, place) => {
    if (level >= first && level <= last) share[place] = 0;
  });
}

// -- functional groups and units ----------------------------------------------------------------------------------
/** The item that an enhanced file keeps of a frame, or of all of them. */
function group(header, frame, name) {
  const frames = sequenceOf(header, "PerFrameFunctionalGroupsSequence").slice(frame, frame + 1);
  const shared = sequenceOf(header, "SharedFunctionalGroupsSequence").slice(0, 1);
  for (const one of [...frames, ...shared]) {
    const [item] = sequenceOf(one, name);
    if (item) return item.elements.size ? item : null;
  }
  return null;
}

/** A preset means Hounsfield units: other modalities have none, and CT may be given without its rescaling. */
function refuseWithoutUnits(header, window) {
  const values = { window: window.name };
  if (textOf(header, "Modality") !== "CT") throw new Refused("refused.dicom_units_of_ct", values);
  const where = group(header, 0, "PixelValueTransformationSequence") ?? header;
  if (numberOf(where, "RescaleSlope") === null || numberOf(where, "RescaleIntercept") === null) {
    throw new Refused("refused.dicom_units_rescale", values);
  }
  const type = textOf(where, "RescaleType", "HU").trim().toUpperCase();
  if (!["HU", "HU_MOD"].includes(type)) throw new Refused("refused.dicom_units_type", values);
}
