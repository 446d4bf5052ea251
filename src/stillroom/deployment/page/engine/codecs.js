// JPEG and WebP by the libraries that Pillow uses too (libjpeg, libwebp), compiled to WebAssembly: the same pixels in every
// browser, bit for bit, where a canvas applies colour profiles, and some browsers disturb what pages read from it.
import { exifOrientation, turned, xmpOrientation } from "./orientation.js";
import { Refused } from "./refused.js";
import { onBlack } from "./transparency.js";
import { fromBase64, inflated, latin, requireSize, viewOf } from "./common.js";

const XMP = "http://ns.adobe.com/xap/1.0/\0";
const FRAMES = new Set([0xc0, 0xc1, 0xc2, 0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf]);

export const isJpeg = (bytes) => bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff;
export const isWebp = (bytes) => latin(bytes, 0, 4) === "RIFF" && latin(bytes, 8, 12) === "WEBP";

/** One decoded image, right way up; of several pictures in one file (MPO) the main one. */
export async function readJpeg(bytes) {
  const { height, width, components, depth, orientation } = jpegHead(bytes);
  requireSize(height, width);
  if (depth !== 8) throw new Refused("refused.deep_jpeg", { bits: depth });
  if (components === 4) throw new Refused("refused.cmyk");
  const rgba = await run("jpeg", (module) => module.decode(bytes, false), height, width);
  return turned(withoutOpacity(rgba, height, width), orientation);
}

/** One decoded image, right way up. */
export async function readWebp(bytes) {
  const { height, width, animated, opacity, orientation } = webpHead(bytes);
  requireSize(height, width);
  if (animated) throw new Refused("refused.animated");
  const rgba = await run("webp", (module) => module.decode(bytes), height, width);
  return turned(opacity ? onBlack(rgba, height, width, 3) : withoutOpacity(rgba, height, width), orientation);
}

function withoutOpacity(rgba, height, width) {
  const data = new Uint8Array(height * width * 3);
  for (let i = 0, j = 0; j < data.length; i += 4, j += 3) {
    data[j] = rgba[i];
    data[j + 1] = rgba[i + 1];
    data[j + 2] = rgba[i + 2];
  }
  return { height, width, channels: 3, bits: 8, data };
}

const modules = {};

/** RGBA of a library's `decode`. Where it fails it has stopped for good, and is loaded anew for the next image. */
async function run(name, decode, height, width) {
  let found;
  try {
    modules[name] ??= load(name);
    found = decode(await modules[name]);
  } catch {
    found = null;
  }
  if (!found || found.width !== width || found.height !== height) {
    delete modules[name];
    throw new Refused("refused.damaged");
  }
  return found.data;
}

async function load(name) {
  const [make, packed] = CODECS[name]; // put before this file when the page is made
  const wasm = await WebAssembly.compile(await inflated(fromBase64(packed), "gzip"));
  return make({
    noInitialRun: true,
    locateFile: (name) => name, // which is never loaded
    print() {},
    printErr() {},
    instantiateWasm(imports, received) {
      const instance = new WebAssembly.Instance(wasm, imports);
      received(instance);
      return instance.exports;
    },
  });
}

/** What stands before the pixels; refuses a file that ends before its picture does. */
function jpegHead(bytes) {
  const view = viewOf(bytes);
  const exif = [];
  let frame = null;
  let xmp = "";
  let scans = 0;
  for (let at = 2; at + 2 <= bytes.length; ) {
    if (bytes[at] !== 0xff) {
      at++; // a scan's data, or what a sloppy writer left between two segments
      continue;
    }
    const marker = bytes[at + 1];
    if (marker === 0xff) {
      at++;
      continue;
    }
    if (marker === 0xd9 && scans) return told(frame, exif, xmp);
    if (marker === 0 || marker === 1 || (marker >= 0xd0 && marker <= 0xd9)) {
      at += 2;
      continue;
    }
    if (at + 4 > bytes.length) break;
    const length = view.getUint16(at + 2);
    const body = bytes.subarray(at + 4, at + 2 + length);
    if (FRAMES.has(marker) && !frame && body.length >= 6) {
      const size = viewOf(body);
      frame = { depth: body[0], height: size.getUint16(1), width: size.getUint16(3), components: body[5] };
    } else if (marker === 0xda) scans++;
    else if (marker === 0xe1 && !scans && latin(body, 0, 6) === "Exif\0\0") exif.push(exif.length ? body.subarray(6) : body);
    else if (marker === 0xe1 && !scans && latin(body, 0, XMP.length) === XMP) xmp = new TextDecoder().decode(body);
    at += 2 + length;
  }
  throw new Refused(`refused.${frame ? "truncated" : "damaged"}`);
}

function told(frame, exif, xmp) {
  if (!frame) throw new Refused("refused.damaged");
  const whole = new Uint8Array(exif.reduce((sum, part) => sum + part.length, 0));
  exif.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return { ...frame, orientation: exifOrientation(whole) || xmpOrientation(xmp) || 1 };
}

function webpHead(bytes) {
  const view = viewOf(bytes);
  if (bytes.length < 30 || view.getUint32(4, true) + 8 > bytes.length) throw new Refused("refused.truncated");
  const found = { height: 0, width: 0, animated: false, opacity: false, orientation: 0 };
  let xmp = 0;
  const end = view.getUint32(4, true) + 8;
  for (let at = 12; at + 8 <= end; ) {
    const name = latin(bytes, at, at + 4);
    const length = view.getUint32(at + 4, true);
    const start = at + 8;
    const body = bytes.subarray(start, start + length);
    if (name === "VP8X" && length >= 10) {
      found.animated = (body[0] & 2) > 0;
      found.opacity = (body[0] & 16) > 0;
      found.width = 1 + (view.getUint32(start + 4, true) & 0xffffff);
      found.height = 1 + (view.getUint32(start + 6, true) >>> 8);
    } else if (name === "VP8 " && !found.width && length >= 10) {
      found.width = view.getUint16(start + 6, true) & 0x3fff;
      found.height = view.getUint16(start + 8, true) & 0x3fff;
    } else if (name === "VP8L" && !found.width && length >= 5) {
      const packed = view.getUint32(start + 1, true);
      found.width = 1 + (packed & 0x3fff);
      found.height = 1 + ((packed >>> 14) & 0x3fff);
      found.opacity = ((packed >>> 28) & 1) > 0;
    } else if (name === "EXIF") found.orientation = exifOrientation(body);
    else if (name === "XMP ") xmp = xmpOrientation(new TextDecoder().decode(body));
    at = start + length + (length & 1);
  }
  return { ...found, orientation: found.orientation || xmp || 1 };
}
