// SPDX-License-Identifier: Apache-2.0
// The flame tree as the page uses it: the columns plus what follows from them. Nodes are in level
// order, so the nodes of one depth are adjacent, the children of one node are adjacent, and `start`
// grows within a level. Everything that draws or picks relies on these three.
import type { Columns } from './columns';
import { hashNames, mixHigh, mixLow, type NameHashes } from './hash';

export interface FlameTree extends Columns {
  size: number;
  depth: Uint16Array | Uint32Array;
  levelStart: Uint32Array; // levelStart[d] … levelStart[d + 1]: the nodes of depth d
  levels: number;
  firstChild: Uint32Array; // firstChild[i] … firstChild[i] + childCount[i]
  childCount: Uint32Array;
  start: Float64Array; // left edge in units of value; the root covers [0, total[0])
}

export function buildTree(columns: Columns): FlameTree {
  const { parent, total } = columns;
  const size = parent.length;
  const depth = new Uint32Array(size);
  const firstChild = new Uint32Array(size);
  const childCount = new Uint32Array(size);
  const start = new Float64Array(size);
  const levelStarts: number[] = [0];
  let cursor = 0; // right edge of the previous sibling
  for (let i = 1; i < size; ++i) {
    const up = parent[i];
    depth[i] = depth[up] + 1;
    if (depth[i] !== depth[i - 1]) levelStarts.push(i);
    if (childCount[up]++ === 0) {
      firstChild[up] = i;
      cursor = start[up];
    }
    start[i] = cursor;
    cursor += total[i];
  }
  const levels = levelStarts.length;
  return {
    ...columns,
    size,
    depth,
    levelStart: Uint32Array.from([...levelStarts, size]),
    levels,
    firstChild,
    childCount,
    start,
  };
}

// The node of `depth` that covers position x (in units of value), or -1.
export function nodeAt(tree: FlameTree, depth: number, x: number): number {
  if (depth < 0 || depth >= tree.levels) return -1;
  const i = lastStartAtOrBefore(tree, depth, x);
  return i >= 0 && x < tree.start[i] + tree.total[i] ? i : -1;
}

// Index of the last node of the level with start <= x, or -1. Of nodes with equal start (those
// before it are empty) the last one wins.
export function lastStartAtOrBefore(tree: FlameTree, depth: number, x: number): number {
  let low = tree.levelStart[depth];
  let high = tree.levelStart[depth + 1];
  const first = low;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (tree.start[middle] <= x) low = middle + 1;
    else high = middle;
  }
  return low > first ? low - 1 : -1;
}

export function pathOf(tree: FlameTree, node: number): number[] {
  const path = [node];
  while (node !== 0) path.push((node = tree.parent[node]));
  return path.reverse();
}

export function isAncestorOrSelf(tree: FlameTree, ancestor: number, node: number): boolean {
  while (tree.depth[node] > tree.depth[ancestor]) node = tree.parent[node];
  return node === ancestor;
}

export function largestChild(tree: FlameTree, node: number): number {
  let best = -1;
  const end = tree.firstChild[node] + tree.childCount[node];
  for (let i = tree.firstChild[node]; i < end; ++i) {
    if (best < 0 || tree.total[i] > tree.total[best]) best = i;
  }
  return best;
}

// --- Path hashes: how a link names a node -----------------------------------------------------

// Siblings of one name (say, inlined and not) are told apart by their order.
export function hashPaths(tree: FlameTree): NameHashes {
  const names = hashNames(tree.names);
  const high = new Uint32Array(tree.size);
  const low = new Uint32Array(tree.size);
  let repeat = 0;
  for (let i = 0; i < tree.size; ++i) {
    const up = tree.parent[i];
    const same = i > 1 && tree.parent[i - 1] === up && tree.name[i - 1] === tree.name[i];
    repeat = same ? repeat + 1 : 0;
    const name = tree.name[i];
    high[i] = mixHigh(i === 0 ? 0 : high[up], names.high[name] + repeat);
    low[i] = mixLow(i === 0 ? 0 : low[up], names.low[name] + repeat);
  }
  return { high, low };
}
