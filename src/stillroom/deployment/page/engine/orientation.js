// Which way up: the orientation that EXIF or XMP states, and the pixels turned accordingly, as Pillow's exif_transpose.
import { latin, viewOf } from "./common.js";

/** The orientation, 1 to 8, of an EXIF block (a TIFF header and its first directory); 0 where it states none. */
export function exifOrientation(exif) {
  let bytes = exif;
  for (let i = 0; i < 2 && latin(bytes, 0, 6) === "Exif\0\0"; i++) bytes = bytes.subarray(6);
  if (bytes.length < 8) return 0;
  const view = viewOf(bytes);
  const little = view.getUint8(0) === 0x49;
  const start = view.getUint32(4, little);
  if (start + 2 > bytes.length) return 0;
  const count = view.getUint16(start, little);
  for (let i = 0; i < count; i++) {
    const at = start + 2 + 12 * i;
    if (at + 12 > bytes.length) return 0;
    if (view.getUint16(at, little) !== 0x0112) continue;
    const kind = view.getUint16(at + 2, little);
    if (view.getUint32(at + 4, little) !== 1) return 0;
    const value = kind === 3 ? view.getUint16(at + 8, little) : kind === 4 ? view.getUint32(at + 8, little) : kind === 1 ? view.getUint8(at + 8) : 0;
    return value <= 8 ? value : 0;
  }
  return 0;
}

/** The orientation that a text of XMP states; 0 for none. */
export function xmpOrientation(text) {
  const found = /tiff:Orientation(="|>)([0-9])/.exec(text);
  return found ? Number(found[2]) : 0;
}

/** The image turned or mirrored as an orientation says; what is 1, or unknown, leaves it as it is. */
export function turned(image, orientation) {
  if (!(orientation >= 2 && orientation <= 8)) return image;
  const { height, width, channels, data } = image;
  const swaps = orientation >= 5;
  const rows = swaps ? width : height;
  const columns = swaps ? height : width;
  const out = new data.constructor(data.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      let [y, x] = swaps ? [c, r] : [r, c];
      // Where a pixel of the turned picture stood: mirrored from left to right, upside down, or both.
      if ([2, 3, 7, 8].includes(orientation)) x = width - 1 - x;
      if ([3, 4, 6, 7].includes(orientation)) y = height - 1 - y;
      const from = (y * width + x) * channels;
      const to = (r * columns + c) * channels;
      for (let k = 0; k < channels; k++) out[to + k] = data[from + k];
    }
  }
  return { ...image, height: rows, width: columns, data: out };
}
