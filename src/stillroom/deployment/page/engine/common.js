// What the parts of the engine share: refusals that name a text, bytes, and the one form of a decoded image.
//
// A decoded image is {height, width, channels, bits, data}: channels 1 (grey) or 3 (RGB), interleaved; bits 8 (data is a
// Uint8Array) or 16 (a Uint16Array); 0 is black. It is what `decode_image` of stillroom/data/files.py gives for the same file.
import { Refused } from "./refused.js";

/** As Pillow: twice its MAX_IMAGE_PIXELS. What claims more may be an attack. */
const MOST_PIXELS = 2 * 89478485;

/** Refuses an image without pixels or with more than may be decoded, before memory is taken for it. */
export function requireSize(height, width) {
  if (!height || !width) throw new Refused("refused.no_pixels");
  if (height * width > MOST_PIXELS) throw new Refused("refused.too_large", { limit: 178 });
}

/** Bytes as Latin-1 text. */
export function latin(bytes, start, end) {
  return String.fromCharCode(...bytes.subarray(start, end));
}

/** A window on bytes that reads numbers. */
export function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Undoes base64; several times as fast where the browser does it by itself. */
export function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/**
 * Inflates bytes, at most `limit` of them: what comes behind is neither kept nor waited for.
 * @param {"gzip"|"deflate"|"deflate-raw"} format
 */
export async function inflated(bytes, format, limit = Infinity) {
  const stream = new DecompressionStream(format);
  const writer = stream.writable.getWriter();
  const fed = (async () => {
    for (let at = 0; at < bytes.length; at += 1 << 20) await writer.write(bytes.subarray(at, at + (1 << 20)));
    await writer.close();
  })().catch(() => {}); // the reader meets the same error, after what could be inflated
  const reader = stream.readable.getReader();
  const pieces = [];
  let total = 0;
  try {
    while (total < limit) {
      const { done, value } = await reader.read();
      if (done) break;
      pieces.push(value);
      total += value.length;
    }
  } catch {
    if (limit === Infinity) throw new Refused("refused.damaged");
  }
  reader.cancel().catch(() => {});
  await Promise.race([fed, Promise.resolve()]);
  const whole = new Uint8Array(Math.min(total, limit));
  let at = 0;
  for (const piece of pieces) {
    const part = piece.subarray(0, whole.length - at);
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
