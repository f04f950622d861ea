// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import { functionTable, onlyThrough, sortRows } from './functions';
import { hashToHex, hexToHash, indexOfHash } from './hash';
import { columnsFromFolded, Random, randomColumns, treeFromFolded } from './testing';
import { buildTree, hashPaths, isAncestorOrSelf, largestChild, nodeAt, pathOf } from './tree';

const kTree = treeFromFolded(['main;a;x 10', 'main;a 2', 'main;b;x 5', 'main;b;a;x 3', 'idle 1']);
const nodeOf = (tree: typeof kTree, path: string) => {
  for (let i = 0; i < tree.size; ++i) {
    if (pathOf(tree, i).slice(1).map((n) => tree.names[tree.name[n]]).join(';') === path) return i;
  }
  throw new Error(path);
};

describe('buildTree', () => {
  test('children lie inside their parent, in order', () => {
    const tree = buildTree(randomColumns(new Random(1), 4000, 12, 50));
    for (let i = 1; i < tree.size; ++i) {
      const up = tree.parent[i];
      expect(tree.start[i]).toBeGreaterThanOrEqual(tree.start[up]);
      expect(tree.start[i] + tree.total[i]).toBeLessThanOrEqual(tree.start[up] + tree.total[up]);
      if (tree.depth[i] === tree.depth[i - 1]) {
        expect(tree.start[i]).toBeGreaterThanOrEqual(tree.start[i - 1] + tree.total[i - 1]);
      }
    }
    expect(tree.levelStart[tree.levels]).toBe(tree.size);
  });

  test('nodeAt finds what a scan finds', () => {
    const tree = buildTree(randomColumns(new Random(2), 3000, 9, 50));
    const random = new Random(3);
    for (let round = 0; round < 2000; ++round) {
      const depth = random.below(tree.levels + 1);
      const x = random.next() * tree.total[0] * 1.05;
      let expected = -1;
      for (let i = 0; i < tree.size; ++i) {
        if (tree.depth[i] === depth && tree.start[i] <= x && x < tree.start[i] + tree.total[i]) expected = i;
      }
      expect(nodeAt(tree, depth, x)).toBe(expected);
    }
  });

  test('walks: path, ancestors, largest child', () => {
    const x = nodeOf(kTree, 'main;b;a;x');
    expect(pathOf(kTree, x)).toHaveLength(5);
    expect(isAncestorOrSelf(kTree, nodeOf(kTree, 'main;b'), x)).toBe(true);
    expect(isAncestorOrSelf(kTree, nodeOf(kTree, 'main;a'), x)).toBe(false);
    expect(largestChild(kTree, nodeOf(kTree, 'main'))).toBe(nodeOf(kTree, 'main;a'));
    expect(largestChild(kTree, x)).toBe(-1);
  });
});

describe('hashPaths', () => {
  test('no two of 100,000 paths share a hash, and each is found again', () => {
    const tree = buildTree(randomColumns(new Random(4), 100_000, 20, 300));
    const hashes = hashPaths(tree);
    const seen = new Set<string>();
    for (let i = 0; i < tree.size; ++i) seen.add(hashToHex({ high: hashes.high[i], low: hashes.low[i] }));
    expect(seen.size).toBe(tree.size);
    for (const i of [0, 1, 77, 99_000]) {
      const hex = hashToHex({ high: hashes.high[i], low: hashes.low[i] });
      expect(indexOfHash(hashes, hexToHash(hex)!)).toBe(i);
    }
  });

  test('a path keeps its hash when other stacks and values change', () => {
    const later = treeFromFolded(['aaa;b 3', 'main;a;x 99', 'main;c;y 7']);
    const before = hashPaths(kTree);
    const after = hashPaths(later);
    const i = nodeOf(kTree, 'main;a;x');
    const j = nodeOf(later, 'main;a;x');
    expect([after.high[j], after.low[j]]).toEqual([before.high[i], before.low[i]]);
  });

  test('what is no hash is refused', () => {
    for (const text of ['', 'xyz', '0123456789abcde', '0123456789ABCDEF', '0123456789abcdef0']) {
      expect(hexToHash(text)).toBeNull();
    }
  });
});

describe('functionTable', () => {
  const rows = (lines: string[], root = 0) => {
    const tree = treeFromFolded(lines);
    return Object.fromEntries(
      functionTable(tree, root).map((row) => [tree.names[row.name], [row.self, row.total]]),
    );
  };

  test('sums self, and total once per stack', () => {
    expect(rows(['main;a;x 10', 'main;a 2', 'main;b;x 5', 'main;b;a;x 3', 'idle 1'])).toEqual({
      main: [0, 20], a: [2, 15], b: [0, 8], x: [18, 18], idle: [1, 1],
    });
  });

  test('recursion counts once', () => {
    expect(rows(['f;f;f 4', 'f;g;f 1', 'f 1'])).toEqual({ f: [6, 6], g: [0, 1] });
  });

  test('below a node only its stacks count', () => {
    const tree = treeFromFolded(['main;a;x 10', 'main;b;x 5']);
    const table = functionTable(tree, nodeOf(tree, 'main;b'));
    expect(table.map((row) => [tree.names[row.name], row.self]).sort()).toEqual([['b', 0], ['x', 5]]);
  });

  test('agrees with a map of stacks on random trees', () => {
    const tree = buildTree(randomColumns(new Random(5), 2000, 10, 12));
    const expected = new Map<string, { self: number; total: number }>();
    for (let i = 1; i < tree.size; ++i) {
      const keys = new Set(pathOf(tree, i).slice(1).map((n) => `${tree.name[n]}/${tree.file[n]}`));
      for (const key of keys) {
        const row = expected.get(key) ?? { self: 0, total: 0 };
        row.total += tree.self[i];
        expected.set(key, row);
      }
      expected.get(`${tree.name[i]}/${tree.file[i]}`)!.self += tree.self[i];
    }
    const table = functionTable(tree, 0);
    expect(table).toHaveLength(expected.size);
    for (const row of table) {
      expect({ self: row.self, total: row.total }).toEqual(expected.get(`${row.name}/${row.file}`));
    }
  });

  test('sorts by any column in both directions', () => {
    const tree = treeFromFolded(['a;b 5', 'a;c 1', 'c 9']);
    const table = functionTable(tree, 0);
    const order = (key: 'self' | 'total' | 'name', ascending: boolean) =>
      sortRows(table, tree.names, { key, ascending }).map((row) => tree.names[row.name]).join('');
    expect(order('self', false)).toBe('cba');
    expect(order('self', true)).toBe('abc');
    expect(order('total', false)).toBe('cab');
    expect(order('name', false)).toBe('cba');
  });
});

describe('onlyThrough', () => {
  test('keeps callers and callees and the exact weight', () => {
    const all = columnsFromFolded(['main;a;x 10', 'main;a 2', 'main;b;x 5', 'main;b;a;x 3', 'idle 1']);
    const tree = buildTree(onlyThrough(buildTree(all), all.names.indexOf('a')));
    expect(tree.total[0]).toBe(15);
    expect(tree.total[nodeOf(tree, 'main;b')]).toBe(3);
    expect(tree.total[nodeOf(tree, 'main;a')]).toBe(12);
    expect(tree.self[nodeOf(tree, 'main;a')]).toBe(2);
    expect(() => nodeOf(tree, 'main;b;x')).toThrow();
    expect(() => nodeOf(tree, 'idle')).toThrow();
  });

  test('recursion keeps every stack once', () => {
    const all = columnsFromFolded(['f;f;g 4', 'h 3', 'f 2']);
    const tree = buildTree(onlyThrough(buildTree(all), all.names.indexOf('f')));
    expect(tree.total[0]).toBe(6);
  });
});
