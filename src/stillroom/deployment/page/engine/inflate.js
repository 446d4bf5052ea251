// Deflated bytes unpacked (RFC 1951), up to where the stream ends or breaks off, as zlib does it for Python. A browser's own
// DecompressionStream gives nothing of the last piece where anything follows the stream, as bytes that fill it up do.

const BASES = { lengths: [3], distances: [1] };
const EXTRA = {
  lengths: [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0],
  distances: [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13],
};
for (const kind of ["lengths", "distances"]) EXTRA[kind].forEach((bits, at) => BASES[kind].push(BASES[kind][at] + (1 << bits)));
BASES.lengths[28] = 258; // the longest, which the last but one would reach too
const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LONGEST = 15; // bits of a code
const END = 256;
const FIXED = Array.from({ length: 288 }, (_, symbol) => (symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8));

/** What is wrong with a stream. */
export class NotDeflated extends Error {}
class Short extends Error {}

/**
 * @param {Uint8Array} packed
 * @param {number} limit bytes behind which nothing is unpacked
 * @returns {Uint8Array} at most `limit` and what the last piece has more
 * @throws {NotDeflated} the stream is damaged; one that is cut off gives what there is.
 */
export function inflate(packed, limit) {
  const stream = { packed, at: 0, kept: 0, count: 0, out: new Uint8Array(4 * packed.length + 1024), size: 0, limit };
  try {
    for (let last = 0; !last && stream.size <= limit; ) {
      last = bits(stream, 1);
      const kind = bits(stream, 2);
      if (kind === 3) throw new NotDeflated();
      if (kind === 0) stored(stream);
      else unpack(stream, ...(kind === 1 ? [codesOf(FIXED), codesOf(new Array(30).fill(5))] : told(stream)));
    }
  } catch (error) {
    if (!(error instanceof Short)) throw error;
  }
  return stream.out.subarray(0, stream.size);
}

function bits(stream, wanted) {
  while (stream.count < wanted) {
    if (stream.at >= stream.packed.length) throw new Short();
    stream.kept |= stream.packed[stream.at++] << stream.count;
    stream.count += 8;
  }
  const value = stream.kept & ((1 << wanted) - 1);
  stream.kept >>>= wanted;
  stream.count -= wanted;
  return value;
}

function room(stream, wanted) {
  if (stream.size + wanted <= stream.out.length) return;
  const larger = new Uint8Array(2 * stream.out.length + wanted);
  larger.set(stream.out);
  stream.out = larger;
}

function stored(stream) {
  stream.kept = stream.count = 0; // at most 7 bits, up to a whole byte
  const { packed, at } = stream;
  if (packed.length < at + 4) throw new Short();
  const length = packed[at] | (packed[at + 1] << 8);
  if ((length ^ (packed[at + 2] | (packed[at + 3] << 8))) !== 0xffff) throw new NotDeflated();
  const piece = packed.subarray(at + 4, at + 4 + length);
  room(stream, piece.length);
  stream.out.set(piece, stream.size);
  stream.size += piece.length;
  stream.at = at + 4 + length;
  if (piece.length < length) throw new Short();
}

/** Codes by the lengths of their bits: how many there are of each length, and their symbols in order. */
function codesOf(lengths) {
  const counts = new Uint16Array(LONGEST + 1);
  for (const length of lengths) counts[length] += 1;
  counts[0] = 0;
  const starts = [0, 0];
  for (let length = 1; length < LONGEST; length++) starts.push(starts[length] + counts[length]);
  const symbols = new Uint16Array(lengths.length);
  lengths.forEach((length, symbol) => length && (symbols[starts[length]++] = symbol));
  const left = counts.reduce((free, count, length) => (length ? 2 * free - count : free), 1);
  if (left < 0) throw new NotDeflated();
  return { counts, symbols };
}

function symbolOf(stream, { counts, symbols }) {
  let [code, first, index] = [0, 0, 0];
  for (let length = 1; length <= LONGEST; length++) {
    code |= bits(stream, 1);
    const count = counts[length];
    if (code - first < count) return symbols[index + code - first];
    index += count;
    first = (first + count) << 1;
    code <<= 1;
  }
  throw new NotDeflated();
}

/** The codes that a block tells. */
function told(stream) {
  const [many, far, few] = [bits(stream, 5) + 257, bits(stream, 5) + 1, bits(stream, 4) + 4];
  if (many > 286 || far > 30) throw new NotDeflated();
  const short = new Array(19).fill(0);
  for (let at = 0; at < few; at++) short[ORDER[at]] = bits(stream, 3);
  const codes = codesOf(short);
  const lengths = [];
  while (lengths.length < many + far) {
    const symbol = symbolOf(stream, codes);
    if (symbol < 16) {
      lengths.push(symbol);
      continue;
    }
    if (symbol === 16 && !lengths.length) throw new NotDeflated();
    const [value, more, least] = symbol === 16 ? [lengths.at(-1), 2, 3] : symbol === 17 ? [0, 3, 3] : [0, 7, 11];
    for (let left = least + bits(stream, more); left; left--) lengths.push(value);
  }
  if (lengths.length > many + far || !lengths[END]) throw new NotDeflated();
  return [codesOf(lengths.slice(0, many)), codesOf(lengths.slice(many))];
}

function unpack(stream, literals, distances) {
  while (stream.size <= stream.limit) {
    const symbol = symbolOf(stream, literals);
    room(stream, 258);
    if (symbol < END) {
      stream.out[stream.size++] = symbol;
      continue;
    }
    if (symbol === END) return;
    const length = run(stream, "lengths", symbol - END - 1);
    const distance = run(stream, "distances", symbolOf(stream, distances));
    if (distance > stream.size) throw new NotDeflated();
    for (let left = length; left; left--) stream.out[stream.size] = stream.out[stream.size++ - distance];
  }
}

function run(stream, kind, symbol) {
  const extra = EXTRA[kind][symbol];
  if (extra === undefined) throw new NotDeflated();
  return BASES[kind][symbol] + bits(stream, extra);
}
