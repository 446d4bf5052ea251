// A file's bytes to images, by what they hold, never by the file's name; see stillroom/data/files.py.
import { isJpeg, isWebp, readJpeg, readWebp } from "./codecs.js";
import { latin } from "./common.js";
import { isDicom, readDicom } from "./dicom.js";
import { isPng, readPng } from "./png.js";
import { Refused } from "./refused.js";

/**
 * The images in a file: one, but for formats that hold frames.
 * @param {Uint8Array} bytes
 * @param {{window: object|null, white: number}} display how DICOM images are shown
 * @returns {Promise<Array<{frame: number|null, image: object}>>} frames are numbered from 1. Of a file of several, `image` is
 *   decoded when it is asked for, each time anew, and may then be refused.
 */
export async function decode(bytes, display) {
  if (!bytes.length) throw new Refused("refused.empty");
  if (isDicom(bytes)) return readDicom(bytes, display);
  if (isPng(bytes)) return [{ frame: null, image: await readPng(bytes) }];
  if (isJpeg(bytes)) return [{ frame: null, image: await readJpeg(bytes) }];
  if (isWebp(bytes)) return [{ frame: null, image: await readWebp(bytes) }];
  for (const [name, known] of Object.entries(OTHERS)) if (known(bytes)) throw new Refused("refused.format", { format: name });
  throw new Refused("refused.unknown");
}

const OTHERS = {
  TIFF: (bytes) => ["II*\0", "MM\0*", "II+\0", "MM\0+"].includes(latin(bytes, 0, 4)),
  GIF: (bytes) => latin(bytes, 0, 4) === "GIF8",
  BMP: (bytes) => latin(bytes, 0, 2) === "BM",
};
