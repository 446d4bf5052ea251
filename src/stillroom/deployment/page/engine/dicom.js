// DICOM files to images: the same pixels, and the same reasons where there are none, as stillroom/data/dicom/decoding.py.
// Nothing of a patient is read: of a header only what says how its pixels are shown.

import { colourPixels, palettePixels } from "./dicom_colour.js";
import { storedFrame } from "./dicom_stored.js";
import { greyTable } from "./dicom_grey.js";
import { numberOf, textOf } from "./dicom_elements.js";
import { framesIn, isDicom, MOST_FRAMES, openDicom } from "./dicom_header.js";
import { Refused } from "./refused.js";

export { isDicom };

const MOST_PIXELS = 2 * 89_478_485; // of one frame, as of any other image
const DIRECTORY = "1.2.840.10008.1.3.10"; // the storage class of a DICOMDIR
const GREY = ["MONOCHROME1", "MONOCHROME2"];
const COLOUR = ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"];
const NATIVE = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"];
const COMPRESSED = /^1\.2\.840\.10008\.1\.2\.(5|4\.(50|51|57|70|80|81|90|91|201|202|203))$/;
const NO_PICTURES = new Map([
  ["SEG", "refused.dicom_no_pixels_segmentation"],
  ["RTSTRUCT", "refused.dicom_no_pixels_contours"],
  ["SR", "refused.dicom_no_pixels_report"],
]);

/**
 * The images in a DICOM file: its frames.
 *
 * @param {Uint8Array} bytes of the whole file
 * @param {{window: {centre: number, width: number, name: string}|null, white: number}} display what goes from black to
 *     white in grey images, null for what each file says, with a name where it is one of the presets, which are in
 *     Hounsfield units; and the number that means white, 255 or above it.
 * @returns {{frame: number|null, image: {height: number, width: number, channels: 1|3, bits: 8|16,
 *     data: Uint8Array|Uint16Array, own?: object|null}}[]} of grey images `own` is how the file itself wants it to be shown; frames are numbered from 1, null where the file holds but one. Each is decoded
 *     when its `image` is asked for, anew every time, for all of them may be more than memory holds.
 * @throws {Refused} the file is damaged or holds no pixels of a kind that pictures have; an `image`, when it is asked for,
 *     that its pixels are damaged, or compressed or coloured in a way that is not read here.
 */
export function readDicom(bytes, display) {
  const file = openDicom(bytes);
  refuseNoPicture(file);
  const shape = shapeOf(file.header);
  const frames = framesIn(file);
  if ((numberOf(file.header, "NumberOfFrames", 1) || 1) > MOST_FRAMES) throw new Refused("refused.dicom_frames");
  return Array.from({ length: frames }, (_, frame) => ({
    frame: frames > 1 ? frame + 1 : null,
    get image() {
      try {
        return imageOf(file, frame, frames, shape, display);
      } catch (error) {
        throw error instanceof RangeError ? new Refused("refused.memory") : error;
      }
    },
  }));
}

function imageOf(file, frame, frames, shape, display) {
  const { kind, samples, bits, rows: height, columns: width } = shape;
  const known = GREY.includes(kind) || kind === "PALETTE COLOR";
  if (!(COLOUR.includes(kind) ? samples === 3 : known && samples === 1)) throw new Refused("refused.dicom_kind_of_colour");
  if (display.window && !GREY.includes(kind)) throw new Refused("refused.dicom_window_for_grey");
  const stored = storedFrame(file, frame, frames, shape);
  if (GREY.includes(stored.kind)) {
    const { low, table, own } = greyTable(file.header, frame, bits, shape.signed, display);
    return { height, width, channels: 1, bits: 8 * table.BYTES_PER_ELEMENT, data: looked(stored.values, low, table), own };
  }
  const palette = stored.kind === "PALETTE COLOR";
  const data = palette ? palettePixels(file.header, stored.values) : colourPixels(stored.values, bits, display.white);
  return { height, width, channels: 3, bits: 8 * data.BYTES_PER_ELEMENT, data };
}

function looked(values, low, table) {
  const data = new table.constructor(values.length);
  const last = table.length - 1;
  for (let at = 0; at < data.length; at++) data[at] = table[Math.min(Math.max(values[at] - low, 0), last)];
  return data;
}

// -- refusing -----------------------------------------------------------------------------------------------------
function refuseNoPicture(file) {
  const modality = textOf(file.header, "Modality");
  const native = NATIVE.includes(file.syntax);
  if (textOf(file.meta, "MediaStorageSOPClassUID") === DIRECTORY) throw new Refused("refused.dicom_directory");
  if (modality === "RTDOSE") throw new Refused("refused.dicom_dose");
  if (file.floating) throw new Refused("refused.dicom_floating");
  if (file.start === null) {
    const document = file.header.has("EncapsulatedDocument");
    throw new Refused(NO_PICTURES.get(modality) ?? (document ? "refused.dicom_no_pixels_document" : "refused.dicom_no_pixels"));
  }
  if (!native && !COMPRESSED.test(file.syntax)) throw new Refused("refused.dicom_video");
  if ((file.length === null) === native) throw new Refused("refused.dicom_not_as_it_says");
}

/** What a header says of its pixels: sides, samples, bits, signs, order and kind of colour. */
function shapeOf(header) {
  const [rows, columns, allocated] = ["Rows", "Columns", "BitsAllocated"].map((name) => numberOf(header, name));
  if (![rows, columns, allocated].every(Number.isInteger)) throw new Refused("refused.dicom_no_size");
  const whole = (name, otherwise) => Math.trunc(numberOf(header, name, otherwise) || otherwise);
  const bits = whole("BitsStored", allocated);
  if (Math.min(rows, columns) < 1) throw new Refused("refused.no_pixels");
  if (rows * columns > MOST_PIXELS) throw new Refused("refused.too_large", { limit: Math.floor(MOST_PIXELS / 1e6) });
  if (allocated === 1 || bits === 1) throw new Refused("refused.dicom_single_bits");
  if (allocated !== 8 && allocated !== 16) throw new Refused("refused.dicom_bits", { bits: allocated });
  if (!(bits > 1 && bits <= allocated)) throw new Refused("refused.dicom_more_bits");
  const samples = whole("SamplesPerPixel", 1);
  return {
    rows,
    columns,
    allocated,
    bits,
    samples,
    sign: whole("PixelRepresentation", 0),
    signed: whole("PixelRepresentation", 0) !== 0,
    planar: samples > 1 ? whole("PlanarConfiguration", 0) : 0,
    kind: textOf(header, "PhotometricInterpretation").trim().toUpperCase(),
  };
}
