// Maps of numbers: bilinear enlargement, stretching and weighted sums, as stillroom/explanation/score_cam.py has them.

/** A function that brings [h, w] to [H, W], bilinear between the places' centres. */
export function enlargement(height, width, tall, wide) {
  const rows = places(height, tall);
  const columns = places(width, wide);
  return (map) => {
    const out = new Float32Array(tall * wide);
    for (let r = 0; r < tall; r++) {
      const [above, below, down] = rows[r];
      for (let c = 0; c < wide; c++) {
        const [left, right, along] = columns[c];
        const top = (1 - along) * map[above * width + left] + along * map[above * width + right];
        const bottom = (1 - along) * map[below * width + left] + along * map[below * width + right];
        out[r * wide + c] = (1 - down) * top + down * bottom;
      }
    }
    return out;
  };
}

function places(source, target) {
  return Array.from({ length: target }, (_, i) => {
    const place = Math.min(Math.max(((i + 0.5) * source) / target - 0.5, 0), source - 1);
    const below = Math.floor(place);
    return [below, Math.min(below + 1, source - 1), place - below];
  });
}

/** In place, so that the smallest value is 0 and the largest 1; all 0 where they are equal. */
export function stretched(map) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of map) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const span = high - low;
  for (let i = 0; i < map.length; i++) map[i] = span > 0 ? (map[i] - low) / span : 0;
  return map;
}

/** ReLU of a sum of maps with weights. */
export function weightedSum(count, area, weight, map) {
  const sums = new Float64Array(area);
  for (let n = 0; n < count; n++) {
    const share = weight(n);
    const values = map(n);
    for (let i = 0; i < area; i++) sums[i] += share * values[i];
  }
  return Float32Array.from(sums, (value) => Math.max(value, 0));
}
