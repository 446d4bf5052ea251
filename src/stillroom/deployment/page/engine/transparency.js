// Transparency is laid on black, the background of most medical images and of padding, in Pillow's own arithmetic.
import { Refused } from "./refused.js";

/**
 * What `Image.alpha_composite` leaves of pixels over opaque black.
 * @param {Uint8Array} rgba interleaved, or grey and opacity where `channels` is 1
 * @param {number} channels 1 or 3, besides the opacity
 */
export function onBlack(rgba, height, width, channels) {
  const pixels = height * width;
  const data = new Uint8Array(pixels * channels);
  const stride = channels + 1;
  let shown = false;
  let varies = false;
  for (let i = 0; i < pixels; i++) {
    const opacity = rgba[i * stride + channels];
    shown ||= opacity > 0;
    for (let k = 0; k < channels; k++) {
      const value = rgba[i * stride + k];
      varies ||= value !== rgba[k];
      const scaled = value * opacity * 128 + (0x80 << 7);
      data[i * channels + k] = ((scaled >> 8) + scaled) >> 15;
    }
  }
  if (!shown && varies) throw new Refused("refused.transparent");
  return { height, width, channels, bits: 8, data };
}
