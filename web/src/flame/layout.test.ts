// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import { Random, randomColumns } from '../model/testing';
import { buildTree, type FlameTree } from '../model/tree';
import { type Boxes, layout, makeBoxes, type View } from './layout';

// The slow twin: looks at every node of the tree.
function checkAgainstScan(tree: FlameTree, view: View, boxes: Boxes): void {
  const scale = view.width / (view.to - view.from);
  const single = new Map<number, number>();
  const runs: number[] = [];
  for (let b = 0; b < boxes.count; ++b) {
    if (boxes.runEnd[b] === 0) single.set(boxes.node[b], b);
    else runs.push(b);
  }
  let seen = 0;
  for (let i = 0; i < tree.size; ++i) {
    const left = tree.start[i];
    const right = left + tree.total[i];
    const inView = tree.depth[i] >= view.firstRow && tree.depth[i] < view.lastRow &&
      right > view.from && left < view.to && right > left;
    const b = single.get(i);
    if (!inView) {
      expect(b, `node ${i} is out of view`).toBeUndefined();
      continue;
    }
    const x = (Math.max(left, view.from) - view.from) * scale;
    const width = (Math.min(right, view.to) - view.from) * scale - x;
    if (tree.total[i] * scale >= 1) {
      ++seen;
      expect(b, `node ${i}, ${width} px wide`).toBeDefined();
      expect(boxes.x[b!]).toBeCloseTo(x, 1);
      expect(boxes.width[b!]).toBeCloseTo(width, 1);
      expect(boxes.row[b!]).toBe(tree.depth[i]);
    } else if (b === undefined) {
      const run = runs.find((r) => boxes.node[r] <= i && i < boxes.runEnd[r]);
      expect(run, `narrow node ${i} is in a run`).toBeDefined();
      expect(boxes.x[run!]).toBeLessThanOrEqual(x + 0.01);
      expect(boxes.x[run!] + boxes.width[run!]).toBeGreaterThanOrEqual(x + width - 0.01);
    }
  }
  // A run holds narrow nodes only, of one row.
  for (const r of runs) {
    for (let i = boxes.node[r]; i < boxes.runEnd[r]; ++i) {
      expect(tree.total[i] * scale).toBeLessThan(1);
      expect(tree.depth[i]).toBe(boxes.row[r]);
    }
  }
  expect(seen).toBe([...single.keys()].filter((i) => tree.total[i] * scale >= 1).length);
}

describe('layout', () => {
  test('agrees with a scan of all nodes on random trees and views', () => {
    let boxes = makeBoxes();
    for (let seed = 1; seed <= 12; ++seed) {
      const random = new Random(seed);
      const tree = buildTree(randomColumns(random, 200 + random.below(4000), 3 + random.below(20), 50));
      for (let round = 0; round < 8; ++round) {
        const from = round === 0 ? 0 : random.next() * 0.9 * tree.total[0];
        const to = round === 0 ? tree.total[0] : from + random.next() ** 3 * (tree.total[0] - from);
        const firstRow = random.below(3);
        const view = { from, to, width: 50 + random.below(1500), firstRow, lastRow: firstRow + random.below(40) };
        boxes = layout(tree, view, boxes);
        checkAgainstScan(tree, view, boxes);
      }
    }
  });

  test('an empty view or tree has no boxes', () => {
    const tree = buildTree(randomColumns(new Random(1), 50, 4, 5));
    expect(layout(tree, { from: 5, to: 5, width: 100, firstRow: 0, lastRow: 9 }, makeBoxes()).count).toBe(0);
    expect(layout(tree, { from: 0, to: 9, width: 0, firstRow: 0, lastRow: 9 }, makeBoxes()).count).toBe(0);
  });

  test('a row costs at most a box per pixel, whatever the tree', () => {
    const tree = buildTree(randomColumns(new Random(9), 200_000, 3, 50));
    const view = { from: 0, to: tree.total[0], width: 300, firstRow: 0, lastRow: 3 };
    expect(layout(tree, view, makeBoxes()).count).toBeLessThanOrEqual(3 * 2 * 300);
  });

  // Prints; the machine may be busy, so only a gross regression fails.
  test('a million nodes: time per frame', () => {
    const tree = buildTree(randomColumns(new Random(21), 1_000_000, 49, 50_000));
    let boxes = makeBoxes();
    const times: number[] = [];
    let most = 0;
    for (let frame = 0; frame < 120; ++frame) {
      const zoom = 2 ** -(frame < 60 ? frame / 6 : (120 - frame) / 6);
      const from = 0.3 * (1 - zoom) * tree.total[0];
      const view = { from, to: from + zoom * tree.total[0], width: 1920, firstRow: 0, lastRow: 60 };
      const begin = performance.now();
      boxes = layout(tree, view, boxes);
      times.push(performance.now() - begin);
      most = Math.max(most, boxes.count);
    }
    times.sort((a, b) => a - b);
    console.log(`layout of 1,000,000 nodes, 120 frames: median ${times[60].toFixed(2)} ms, ` +
      `p95 ${times[114].toFixed(2)} ms, at most ${most} boxes`);
    expect(times[60]).toBeLessThan(50);
  });
});
