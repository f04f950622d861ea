// SPDX-License-Identifier: Apache-2.0
// Reads the answer of /api/v1/profile?format=columns:
//
//   "FWFT" | version u8 = 2 | node_count | name_count | name_count × (byte length, UTF-8)
//   | eight columns of node_count varints: parent, name, self, total, flags, file, source, line
//
// Numbers are LEB128 varints; `parent` is the difference to the previous node's parent (never
// negative, so level order is part of the format), self and total are zig-zag coded. Node 0 is the
// root. Bytes may come from anywhere: every count and every index is checked before it is used, and
// an error says what is wrong and where.

export const kInlined = 1;
export const kKernel = 2;
export const kNotSymbolized = 4;
export const kOther = 8;
// Bits 4 to 7: why a frame has no name (model/reasons.ts).
export const reasonOf = (flags: number) => flags >> 4;

export interface Columns {
  names: string[];
  parent: Uint32Array;
  name: Uint32Array;
  self: Float64Array;
  total: Float64Array;
  flags: Uint8Array;
  file: Uint32Array; // binary
  source: Uint32Array; // path of the source file
  line: Uint32Array; // where the function begins; 0: unknown, or several
}

export class FormatError extends Error {
  override name = 'FormatError';
}

const kColumnsPerNode = 8;

class Reader {
  private at = 0;
  constructor(private readonly bytes: Uint8Array) {}

  get position(): number {
    return this.at;
  }
  get left(): number {
    return this.bytes.length - this.at;
  }

  byte(what: string): number {
    if (this.at >= this.bytes.length) throw new FormatError(`profile ends early, in ${what}`);
    return this.bytes[this.at++];
  }

  // Values above 2^53 would lose digits; no profile of ours gets there (104 days on one core in ns).
  varint(what: string): number {
    let low = this.byte(what);
    if (low < 0x80) return low;
    let value = low & 0x7f;
    let scale = 0x80;
    for (let i = 1; i < 10; ++i) {
      low = this.byte(what);
      value += (low & 0x7f) * scale;
      if (low < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) break;
        return value;
      }
      scale *= 0x80;
    }
    throw new FormatError(`number too large at byte ${this.at}, in ${what}`);
  }

  skip(length: number, what: string): void {
    if (length > this.left) throw new FormatError(`profile ends early, in ${what}`);
    this.at += length;
  }
}

export function decodeColumns(bytes: Uint8Array): Columns {
  const reader = new Reader(bytes);
  for (const expected of [0x46, 0x57, 0x46, 0x54]) {
    if (reader.byte('the magic') !== expected) throw new FormatError('not a flame tree (no "FWFT")');
  }
  const version = reader.byte('the version');
  if (version !== 2) throw new FormatError(`flame tree version ${version}: this page reads 2; reload it`);
  const nodeCount = reader.varint('the node count');
  const nameCount = reader.varint('the name count');
  // Each name costs a byte and each node eight: no hostile count makes us allocate more than that.
  if (nameCount + nodeCount * kColumnsPerNode > reader.left) {
    throw new FormatError(`${nodeCount} nodes and ${nameCount} names do not fit into ${reader.left} bytes`);
  }
  if (nodeCount === 0) throw new FormatError('flame tree without a root');
  const names = readNames(reader, bytes, nameCount);
  const columns: Columns = {
    names,
    parent: readParents(reader, nodeCount),
    name: readIndexes(reader, nodeCount, nameCount, 'name'),
    self: readValues(reader, nodeCount, 'self'),
    total: readValues(reader, nodeCount, 'total'),
    flags: readFlags(reader, nodeCount),
    file: readIndexes(reader, nodeCount, nameCount, 'file'),
    source: readIndexes(reader, nodeCount, nameCount, 'source'),
    line: readIndexes(reader, nodeCount, 0x1_0000_0000, 'line'),
  };
  if (reader.left !== 0) throw new FormatError(`${reader.left} bytes too many after the flame tree`);
  checkSums(columns);
  return columns;
}

// One decoder call for all names: most are ASCII, where a byte is a character, so a name is a slice of
// the whole (100,000 calls cost three times as much as the rest). The others are decoded one by one.
function readNames(reader: Reader, bytes: Uint8Array, count: number): string[] {
  const begins = new Uint32Array(count);
  const ends = new Uint32Array(count);
  for (let i = 0; i < count; ++i) {
    const length = reader.varint('a name length');
    begins[i] = reader.position;
    reader.skip(length, 'the names');
    ends[i] = reader.position;
  }
  const first = begins[0] ?? 0;
  const all = new TextDecoder('latin1').decode(bytes.subarray(first, reader.position));
  const utf8 = new TextDecoder();
  return Array.from(begins, (begin, i) => {
    let ascii = true;
    for (let at = begin; at < ends[i] && ascii; ++at) ascii = bytes[at] < 0x80;
    return ascii ? all.slice(begin - first, ends[i] - first) : utf8.decode(bytes.subarray(begin, ends[i]));
  });
}

function readParents(reader: Reader, count: number): Uint32Array {
  const parent = new Uint32Array(count);
  let previous = 0;
  for (let i = 0; i < count; ++i) {
    previous += reader.varint('column parent');
    if (previous >= i && i > 0) throw new FormatError(`node ${i} comes before its parent ${previous}`);
    if (i === 0 && previous !== 0) throw new FormatError('node 0 is not the root');
    parent[i] = previous;
  }
  return parent;
}

function readIndexes(reader: Reader, count: number, limit: number, what: string): Uint32Array {
  const column = new Uint32Array(count);
  for (let i = 0; i < count; ++i) {
    const index = reader.varint(`column ${what}`);
    if (index >= limit) throw new FormatError(`node ${i} has ${what} ${index} of ${limit}`);
    column[i] = index;
  }
  return column;
}

function readValues(reader: Reader, count: number, what: string): Float64Array {
  const column = new Float64Array(count);
  for (let i = 0; i < count; ++i) {
    const coded = reader.varint(`column ${what}`);
    // Odd codes are negative numbers: only a difference of profiles has them, and this is none.
    if (coded % 2 !== 0) throw new FormatError(`node ${i} has a negative ${what}`);
    column[i] = coded / 2;
  }
  return column;
}

function readFlags(reader: Reader, count: number): Uint8Array {
  const flags = new Uint8Array(count);
  for (let i = 0; i < count; ++i) flags[i] = reader.varint('column flags') & 0xff;
  return flags;
}

// A child outside its parent would be drawn over a stranger: total = self + children, exactly.
function checkSums(columns: Columns): void {
  const { parent, self, total } = columns;
  const sum = Float64Array.from(self);
  for (let i = parent.length - 1; i > 0; --i) {
    if (sum[i] !== total[i]) throw mismatch(columns, i, sum[i]);
    sum[parent[i]] += total[i];
  }
  if (sum[0] !== total[0]) throw mismatch(columns, 0, sum[0]);
}

function mismatch(columns: Columns, node: number, sum: number): FormatError {
  return new FormatError(`node ${node} has total ${columns.total[node]}, its self and children make ${sum}`);
}
