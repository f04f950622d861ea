// SPDX-License-Identifier: Apache-2.0
// Which boxes a view shows, and where. The idea: in one level the starts of the nodes grow, so
// the visible ones are found by binary search, and a run of nodes narrower than a pixel is skipped
// by another search and drawn as one box. The work depends on the pixels, not on the nodes: a row
// costs at most one search per pixel.
import type { FlameTree } from '../model/tree';

export interface View {
  from: number; // in units of value
  to: number;
  width: number; // in CSS pixels
  firstRow: number; // depths, half-open
  lastRow: number;
}

// Column per field, reused from frame to frame. x is in CSS pixels from the left of the view.
export interface Boxes {
  count: number;
  x: Float32Array;
  width: Float32Array;
  row: Uint32Array;
  node: Uint32Array; // of a run: its first node
  runEnd: Uint32Array; // 0: one node; else the run is node … runEnd - 1
}

export function makeBoxes(): Boxes {
  return allocate(4096);
}

function allocate(capacity: number): Boxes {
  return {
    count: 0,
    x: new Float32Array(capacity),
    width: new Float32Array(capacity),
    row: new Uint32Array(capacity),
    node: new Uint32Array(capacity),
    runEnd: new Uint32Array(capacity),
  };
}

function grow(boxes: Boxes): Boxes {
  const larger = allocate(boxes.x.length * 2);
  larger.count = boxes.count;
  larger.x.set(boxes.x);
  larger.width.set(boxes.width);
  larger.row.set(boxes.row);
  larger.node.set(boxes.node);
  larger.runEnd.set(boxes.runEnd);
  return larger;
}

const kMinPixels = 1;

// Fills and returns `boxes` (or a larger one).
export function layout(tree: FlameTree, view: View, boxes: Boxes): Boxes {
  boxes.count = 0;
  const span = view.to - view.from;
  if (!(span > 0) || !(view.width > 0)) return boxes;
  const last = Math.min(view.lastRow, tree.levels);
  for (let row = Math.max(view.firstRow, 0); row < last; ++row) {
    boxes = layoutRow(tree, view, row, span / view.width, boxes);
  }
  return boxes;
}

function layoutRow(tree: FlameTree, view: View, row: number, perPixel: number, boxes: Boxes): Boxes {
  const { start, total } = tree;
  const end = tree.levelStart[row + 1];
  const minimum = kMinPixels * perPixel;
  let i = firstEndAfter(tree, tree.levelStart[row], end, view.from);
  while (i < end && start[i] < view.to) {
    let right = start[i] + total[i];
    let runEnd = 0;
    let next = i + 1;
    if (total[i] < minimum) {
      // All nodes that begin within this pixel; the last of them may reach out of it, so it is
      // left for itself when it is wide enough to be seen.
      next = firstStartAtOrAfter(start, i + 1, end, start[i] + minimum);
      if (next - 1 > i && total[next - 1] >= minimum) --next;
      right = start[next - 1] + total[next - 1];
      runEnd = next;
    }
    if (runEnd > 0 && total[next - 1] === 0 && right <= start[i]) {
      i = next; // nothing but empty nodes
      continue;
    }
    boxes = push(boxes, view, row, perPixel, start[i], right, i, runEnd);
    i = next;
  }
  return boxes;
}

function push(
  boxes: Boxes, view: View, row: number, perPixel: number,
  left: number, right: number, node: number, runEnd: number,
): Boxes {
  // In doubles up to here: seen from the view's start the numbers are small enough for floats.
  const x = (Math.max(left, view.from) - view.from) / perPixel;
  const width = (Math.min(right, view.to) - view.from) / perPixel - x;
  const before = boxes.count - 1;
  if (runEnd > 0 && before >= 0 && boxes.row[before] === row && boxes.runEnd[before] === node &&
      x - (boxes.x[before] + boxes.width[before]) < kMinPixels) {
    boxes.width[before] = x + width - boxes.x[before]; // a run that goes on
    boxes.runEnd[before] = runEnd;
    return boxes;
  }
  if (boxes.count === boxes.x.length) boxes = grow(boxes);
  const at = boxes.count++;
  boxes.x[at] = x;
  boxes.width[at] = width;
  boxes.row[at] = row;
  boxes.node[at] = node;
  boxes.runEnd[at] = runEnd;
  return boxes;
}

// First node in [low, high) that ends after x; ends grow with starts, as nodes do not overlap.
function firstEndAfter(tree: FlameTree, low: number, high: number, x: number): number {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (tree.start[middle] + tree.total[middle] <= x) low = middle + 1;
    else high = middle;
  }
  return low;
}

function firstStartAtOrAfter(start: Float64Array, low: number, high: number, x: number): number {
  // Runs are mostly short: gallop before halving.
  let step = 1;
  let probe = low;
  while (probe < high && start[probe] < x) {
    low = probe + 1;
    probe += step;
    step *= 2;
  }
  high = Math.min(high, probe);
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (start[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low;
}
