// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import { reasonText, sourceOf, unnamedShare } from './reasons';
import { treeFromFolded } from './testing';

describe('reasons', () => {
  test('only frames without a name have one, and unknown numbers are said to be unknown', () => {
    expect(reasonText(0)).toBe('');
    expect(reasonText(1 | (4 << 4))).toBe('');
    expect(reasonText(4 | (4 << 4))).toBe('its file is stripped');
    expect(reasonText(4)).toMatch(/no agent/);
    expect(reasonText(4 | (15 << 4))).toMatch(/no agent/);
  });

  test('the share counts values times frames, without what stands for others', () => {
    const tree = treeFromFolded(['main;a 6', 'main;b;c 2', '(other) 100']);
    const node = (name: string) => Array.from(tree.name).findIndex((id) => tree.names[id] === name);
    expect(unnamedShare(tree)).toBe(0);
    tree.flags[node('(other)')] = 8;
    tree.flags[node('a')] = 4;
    tree.flags[node('c')] = 4;
    expect(unnamedShare(tree)).toBe((6 + 2) / (8 + 6 + 2 + 2));
    expect(unnamedShare(treeFromFolded(['main 0']))).toBe(0);
  });

  test('a source is shown with its folder and line', () => {
    const tree = treeFromFolded(['main;/long/way/to/src/app.cc 1']);
    expect(sourceOf(tree, 1)).toEqual({ short: '', full: '' });
    tree.source[1] = tree.name[2];
    expect(sourceOf(tree, 1).short).toBe('src/app.cc');
    tree.line[1] = 12;
    expect(sourceOf(tree, 1)).toEqual({ short: 'src/app.cc:12', full: '/long/way/to/src/app.cc:12' });
  });
});
