// SPDX-License-Identifier: Apache-2.0
// For tests only: trees from folded stacks, random trees, and the encoder that mirrors the format.
import type { Columns } from './columns';
import { buildTree, type FlameTree } from './tree';

export class Random {
  constructor(private state: number) {}
  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }
}

interface Building {
  name: string;
  file: string;
  self: number;
  total: number;
  children: Map<string, Building>;
}

// "main;work;leaf 5" per line; a frame may be "name@binary".
export function columnsFromFolded(lines: string[]): Columns {
  const root: Building = { name: 'total', file: '', self: 0, total: 0, children: new Map() };
  for (const line of lines) {
    const space = line.lastIndexOf(' ');
    const value = Number(line.slice(space + 1));
    let node = root;
    node.total += value;
    for (const frame of line.slice(0, space).split(';')) {
      let child = node.children.get(frame);
      if (!child) {
        const [name, file = ''] = frame.split('@');
        child = { name, file, self: 0, total: 0, children: new Map() };
        node.children.set(frame, child);
      }
      child.total += value;
      node = child;
    }
    node.self += value;
  }
  return flatten(root);
}

function flatten(root: Building): Columns {
  const names = new Map<string, number>([['', 0]]);
  const intern = (name: string) => {
    if (!names.has(name)) names.set(name, names.size);
    return names.get(name)!;
  };
  const nodes: { node: Building; parent: number }[] = [{ node: root, parent: 0 }];
  for (let i = 0; i < nodes.length; ++i) {
    const children = [...nodes[i].node.children.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const node of children) nodes.push({ node, parent: i });
  }
  return {
    name: Uint32Array.from(nodes, ({ node }) => intern(node.name)),
    file: Uint32Array.from(nodes, ({ node }) => intern(node.file)),
    parent: Uint32Array.from(nodes, ({ parent }) => parent),
    self: Float64Array.from(nodes, ({ node }) => node.self),
    total: Float64Array.from(nodes, ({ node }) => node.total),
    flags: new Uint8Array(nodes.length),
    source: new Uint32Array(nodes.length),
    line: new Uint32Array(nodes.length),
    names: [...names.keys()],
  };
}

export function treeFromFolded(lines: string[]): FlameTree {
  return buildTree(columnsFromFolded(lines));
}

// About `size` nodes over `levels` levels; many tiny nodes, some with self, some without.
export function randomColumns(random: Random, size: number, levels: number, nameCount: number): Columns {
  const parent: number[] = [0];
  let from = 0;
  const perLevel = Math.max(1, Math.floor((size - 1) / Math.max(1, levels - 1)));
  for (let level = 1; level < levels && parent.length < size; ++level) {
    const to = parent.length;
    const parents: number[] = [];
    for (let i = 0; i < perLevel; ++i) parents.push(from + Math.floor((to - from) * random.next() ** 2));
    parents.sort((a, b) => a - b);
    for (const up of parents) parent.push(up);
    from = to;
  }
  const count = parent.length;
  const self = new Float64Array(count);
  const hasChild = new Uint8Array(count);
  for (let i = 1; i < count; ++i) hasChild[parent[i]] = 1;
  for (let i = 1; i < count; ++i) {
    self[i] = !hasChild[i] || random.next() < 0.3 ? 1 + Math.floor(1000 * random.next() ** 6) : 0;
  }
  const total = Float64Array.from(self);
  for (let i = count - 1; i > 0; --i) total[parent[i]] += total[i];
  return {
    parent: Uint32Array.from(parent),
    name: namesInOrder(random, parent, nameCount),
    file: Uint32Array.from(parent, () => random.below(Math.min(8, nameCount))),
    source: Uint32Array.from(parent, () => random.below(Math.min(8, nameCount))),
    line: Uint32Array.from(parent, () => random.below(5000)),
    flags: Uint8Array.from(parent, () => (random.next() < 0.2 ? 1 + random.below(7) : 0)),
    self,
    total,
    names: Array.from({ length: nameCount }, (_, i) => `function_${i}`),
  };
}

// Siblings are sorted by name, as the server sends them.
function namesInOrder(random: Random, parent: number[], nameCount: number): Uint32Array {
  const names = Uint32Array.from(parent, () => random.below(nameCount));
  for (let from = 1, to; from < parent.length; from = to) {
    for (to = from + 1; to < parent.length && parent[to] === parent[from]; ) ++to;
    names.subarray(from, to).sort();
  }
  return names;
}

export function encodeColumns(columns: Columns): Uint8Array {
  const out: number[] = [0x46, 0x57, 0x46, 0x54, 2];
  const varint = (value: number) => {
    while (value >= 0x80) {
      out.push((value % 0x80) | 0x80);
      value = Math.floor(value / 0x80);
    }
    out.push(value);
  };
  varint(columns.parent.length);
  varint(columns.names.length);
  for (const name of columns.names) {
    const bytes = new TextEncoder().encode(name);
    varint(bytes.length);
    bytes.forEach((byte) => out.push(byte));
  }
  columns.parent.forEach((parent, i) => varint(parent - (i > 0 ? columns.parent[i - 1] : 0)));
  columns.name.forEach(varint);
  columns.self.forEach((value) => varint(value >= 0 ? 2 * value : -2 * value - 1));
  columns.total.forEach((value) => varint(value >= 0 ? 2 * value : -2 * value - 1));
  columns.flags.forEach(varint);
  columns.file.forEach(varint);
  columns.source.forEach(varint);
  columns.line.forEach(varint);
  return Uint8Array.from(out);
}
