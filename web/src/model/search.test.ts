// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import { compileSearch, coveredBelow, findMatches } from './search';
import { Random, randomColumns, treeFromFolded } from './testing';
import { buildTree, isAncestorOrSelf, pathOf } from './tree';

const kTree = treeFromFolded(['main@app;Malloc@libc.so 10', 'main@app;free@libc.so 5', 'main@app;malloc@app;malloc@app 2', 'idle 3']);

describe('search', () => {
  test('a substring ignores case, and blank text is no search', () => {
    expect(compileSearch('  ')).toBeNull();
    const matches = findMatches(kTree, compileSearch('malloc')!, false);
    expect(matches.count).toBe(3);
  });

  test('value under the topmost matches counts recursion once', () => {
    expect(findMatches(kTree, compileSearch('malloc')!, false).covered).toBe(12);
  });

  test('binaries match, too', () => {
    expect(findMatches(kTree, compileSearch('libc')!).covered).toBe(15);
  });

  test('a regular expression between slashes keeps case unless told', () => {
    expect(findMatches(kTree, compileSearch('/^malloc$/')!, false).count).toBe(2);
    expect(findMatches(kTree, compileSearch('/^malloc$/i')!, false).count).toBe(3);
  });

  test('a broken expression is an error with its text; a lone slash is a substring', () => {
    expect(() => compileSearch('/(/')).toThrow(SyntaxError);
    expect(compileSearch('/')!('a/b')).toBe(true);
  });

  test('the root is nobody’s function', () => {
    expect(findMatches(kTree, compileSearch('total')!).count).toBe(0);
  });

  test('prefix counts and shares agree with a scan on random trees', () => {
    const tree = buildTree(randomColumns(new Random(11), 3000, 11, 40));
    const matches = findMatches(tree, compileSearch('/_[123]$/')!, false);
    const hit = (n: number) => n > 0 && /_[123]$/.test(tree.names[tree.name[n]]);
    const random = new Random(12);
    for (const root of [0, 1, 2, 5, ...Array.from({ length: 60 }, () => random.below(tree.size))]) {
      let expected = 0;
      for (let i = 1; i < tree.size; ++i) {
        if (isAncestorOrSelf(tree, root, i) && pathOf(tree, i).some(hit)) expected += tree.self[i];
      }
      expect(coveredBelow(tree, matches, root)).toBe(expected);
    }
    for (let i = 0; i < tree.size; i += 97) {
      let count = 0;
      for (let j = 0; j < i; ++j) count += hit(j) ? 1 : 0;
      expect(matches.before[i]).toBe(count);
    }
  });
});
