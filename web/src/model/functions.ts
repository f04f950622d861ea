// SPDX-License-Identifier: Apache-2.0
// Two views made from a tree: the function table, and the tree of only the stacks through one
// function.
import { type Columns, kInlined, kKernel, kNotSymbolized, kOther } from './columns';
import type { FlameTree } from './tree';

export interface FunctionRow {
  name: number; // index into names
  file: number;
  self: number;
  total: number; // recursion counted once per stack
  flags: number;
}

// Functions below (and with) `root`. A function in two binaries is two rows.
export function functionTable(tree: FlameTree, root: number): FunctionRow[] {
  const { rowOf, rows } = makeRows(tree);
  const onStack = new Uint32Array(rows.length);
  const seen = new Uint8Array(rows.length);
  // Depth first with an own stack; ~node marks the way back.
  const todo: number[] = [root];
  while (todo.length > 0) {
    const entry = todo.pop()!;
    if (entry < 0) {
      --onStack[rowOf[~entry]];
      continue;
    }
    if (entry !== 0) {
      const id = rowOf[entry];
      const row = rows[id];
      row.flags = seen[id] ? mergeFlags(row.flags, tree.flags[entry]) : tree.flags[entry];
      seen[id] = 1;
      row.self += tree.self[entry];
      if (onStack[id]++ === 0) row.total += tree.total[entry];
      if (tree.childCount[entry] > 0) todo.push(~entry);
      else --onStack[id];
    }
    const end = tree.firstChild[entry] + tree.childCount[entry];
    for (let child = tree.firstChild[entry]; child < end; ++child) todo.push(child);
  }
  return rows.filter((_, id) => seen[id]);
}

// One row per (name, binary), and for each node the index of its row. No hash map: nearly every name
// has one binary, so a list per name is short (285,000 nodes: 40 ms instead of a second).
function makeRows(tree: FlameTree): { rowOf: Uint32Array; rows: FunctionRow[] } {
  const rowOf = new Uint32Array(tree.size);
  const rows: FunctionRow[] = [];
  const lastOfName = new Int32Array(tree.names.length).fill(-1);
  const previous: number[] = [];
  for (let i = 1; i < tree.size; ++i) {
    let id = lastOfName[tree.name[i]];
    while (id >= 0 && rows[id].file !== tree.file[i]) id = previous[id];
    if (id < 0) {
      id = rows.length;
      rows.push({ name: tree.name[i], file: tree.file[i], self: 0, total: 0, flags: 0 });
      previous.push(lastOfName[tree.name[i]]);
      lastOfName[tree.name[i]] = id;
    }
    rowOf[i] = id;
  }
  return { rowOf, rows };
}

// A row is "inlined" only where every copy of the function is.
function mergeFlags(a: number, b: number): number {
  return ((a | b) & (kKernel | kNotSymbolized | kOther)) | (a & b & kInlined);
}

export type SortKey = 'self' | 'total' | 'name';
export interface Sort {
  key: SortKey;
  ascending: boolean;
}

export function sortRows(rows: FunctionRow[], names: string[], sort: Sort): FunctionRow[] {
  const direction = sort.ascending ? 1 : -1;
  const byName = (a: FunctionRow, b: FunctionRow) =>
    names[a.name] < names[b.name] ? -1 : names[a.name] > names[b.name] ? 1 : 0;
  const { key } = sort;
  return [...rows].sort((a, b) => {
    if (key === 'name') return direction * byName(a, b) || b.self - a.self;
    return direction * (a[key] - b[key]) || b.total - a.total || byName(a, b);
  });
}

// The tree of the stacks that pass through a function whose name is `name`, with callers and
// callees. Values of callers shrink to what flows through it.
export function onlyThrough(tree: FlameTree, name: number): Columns {
  const inside = new Uint8Array(tree.size); // at or below a match
  const kept = new Float64Array(tree.size); // new total
  for (let i = 1; i < tree.size; ++i) {
    inside[i] = inside[tree.parent[i]] || tree.name[i] === name ? 1 : 0;
  }
  for (let i = tree.size - 1; i > 0; --i) {
    if (inside[i]) kept[i] = tree.total[i];
    kept[tree.parent[i]] += inside[i] && inside[tree.parent[i]] ? 0 : kept[i];
  }
  const index = new Int32Array(tree.size).fill(-1);
  let size = 0;
  for (let i = 0; i < tree.size; ++i) {
    if (i === 0 || inside[i] || kept[i] > 0) index[i] = size++;
  }
  const columns: Columns = {
    names: tree.names,
    parent: new Uint32Array(size),
    name: new Uint32Array(size),
    self: new Float64Array(size),
    total: new Float64Array(size),
    flags: new Uint8Array(size),
    file: new Uint32Array(size),
    source: new Uint32Array(size),
    line: new Uint32Array(size),
  };
  for (let i = 0; i < tree.size; ++i) {
    const to = index[i];
    if (to < 0) continue;
    columns.parent[to] = i === 0 ? 0 : index[tree.parent[i]];
    columns.name[to] = tree.name[i];
    columns.self[to] = inside[i] ? tree.self[i] : 0;
    columns.total[to] = kept[i];
    columns.flags[to] = tree.flags[i];
    columns.file[to] = tree.file[i];
    columns.source[to] = tree.source[i];
    columns.line[to] = tree.line[i];
  }
  return columns;
}
