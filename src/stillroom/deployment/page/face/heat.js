// Heat in colours and lines. Nothing here knows of the page.

/** A table of 256 colours, [r, g, b] each, for heat from 0 to 1. `scale` holds the stops that pictures of Stillroom have. */
export function palette({ stops, colours }) {
  return Array.from({ length: 256 }, (_, n) => {
    const heat = n / 255;
    const upper = Math.max(1, stops.findIndex((stop) => stop >= heat));
    const share = (heat - stops[upper - 1]) / (stops[upper] - stops[upper - 1]);
    return colours[upper].map((high, c) => colours[upper - 1][c] + (high - colours[upper - 1][c]) * share);
  });
}

/** RGBA bytes of a map `[rows * columns]` in [0, 1], whose opacity is the heat: where it is 0 the image is bare. */
export function heatPixels(map, colours) {
  const pixels = new Uint8ClampedArray(map.length * 4);
  for (let n = 0; n < map.length; n++) {
    const level = Math.round(255 * Math.min(1, Math.max(0, map[n])));
    const [red, green, blue] = colours[level];
    pixels.set([red, green, blue, level], 4 * n);
  }
  return pixels;
}

/** Lines of equal heat (marching squares): `[x0, y0, x1, y1]` each, in pixels of the map, whose centres are at .5. */
export function outline(map, side, level) {
  const lines = [];
  const at = (x, y) => (x < 0 || y < 0 || x >= side || y >= side ? 0 : map[y * side + x]);
  const cross = (a, b) => (level - a) / (b - a);
  for (let y = -1; y < side; y++) {
    for (let x = -1; x < side; x++) {
      const [a, b, c, d] = [at(x, y), at(x + 1, y), at(x + 1, y + 1), at(x, y + 1)];
      const kind = (a >= level) | ((b >= level) << 1) | ((c >= level) << 2) | ((d >= level) << 3);
      if (kind === 0 || kind === 15) continue;
      const top = () => [x + cross(a, b), y];
      const right = () => [x + 1, y + cross(b, c)];
      const bottom = () => [x + cross(d, c), y + 1];
      const left = () => [x, y + cross(a, d)];
      const add = (from, to) => lines.push([from[0] + 0.5, from[1] + 0.5, to[0] + 0.5, to[1] + 0.5]);
      if (kind === 5 || kind === 10) {
        const joined = (a + b + c + d) / 4 >= level;
        if ((kind === 5) === joined) (add(top(), right()), add(bottom(), left()));
        else (add(left(), top()), add(right(), bottom()));
      } else {
        const ends = [];
        if ((kind & 1) !== ((kind >> 1) & 1)) ends.push(top());
        if (((kind >> 1) & 1) !== ((kind >> 2) & 1)) ends.push(right());
        if (((kind >> 2) & 1) !== ((kind >> 3) & 1)) ends.push(bottom());
        if ((kind & 1) !== ((kind >> 3) & 1)) ends.push(left());
        add(ends[0], ends[1]);
      }
    }
  }
  return lines;
}

/** Where the square that the network sees lies on an image: `{x, y, width, height}` in the image's pixels. */
export function squareOn(width, height, fit) {
  if (fit !== "pad") return { x: 0, y: 0, width, height };
  const side = Math.max(width, height);
  return { x: (width - side) / 2, y: (height - side) / 2, width: side, height: side };
}
