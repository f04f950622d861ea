// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import { treeFromFolded } from '../model/testing';
import { colorIndexes, contrast, fromOklch, HueBook, kLabelColor, kMatchLabelColor, makePalette, type Rgb } from './colors';

const unpack = (packed: number): Rgb => ({ r: packed & 255, g: (packed >>> 8) & 255, b: (packed >>> 16) & 255 });

describe('colours', () => {
  test('the conversion knows white, black and a mid grey', () => {
    expect(fromOklch({ lightness: 1, chroma: 0, hue: 0 })).toEqual({ r: 255, g: 255, b: 255 });
    expect(fromOklch({ lightness: 0, chroma: 0, hue: 0 })).toEqual({ r: 0, g: 0, b: 0 });
    expect(fromOklch({ lightness: 0.5999, chroma: 0, hue: 0 })).toEqual({ r: 128, g: 128, b: 128 });
  });

  test.each(['light', 'dark'] as const)('labels are readable on every %s box (AA, 4.5)', (theme) => {
    const palette = makePalette(theme);
    for (const fill of [...palette.fills, ...palette.dimmed]) {
      expect(contrast(unpack(fill), kLabelColor[theme])).toBeGreaterThanOrEqual(4.5);
    }
    expect(contrast(unpack(palette.match), kMatchLabelColor)).toBeGreaterThanOrEqual(4.5);
  });

  test.each(['light', 'dark'] as const)('a match stands out from every %s box', (theme) => {
    const palette = makePalette(theme);
    for (const fill of palette.dimmed) {
      expect(contrast(unpack(fill), unpack(palette.match))).toBeGreaterThan(1.6);
    }
  });

  test('one binary has one hue, and the kernel its own', () => {
    const tree = treeFromFolded(['a@x;b@x;k@[kernel] 1', 'a@x;k@[kernel] 1']);
    tree.flags.forEach((_, i) => {
      if (tree.names[tree.file[i]] === '[kernel]') tree.flags[i] = 2;
    });
    const tone = [...colorIndexes(tree, new HueBook())].map((index) => Math.floor(index / 5));
    const of = (name: string) => new Set(tone.filter((_, i) => tree.names[tree.name[i]] === name));
    expect(of('a')).toEqual(of('b'));
    expect(of('k').size).toBe(1);
    expect(of('k')).not.toEqual(of('a'));
  });

  test('the largest seven binaries have seven hues, and keep them when ranks change', () => {
    const files = ['a.so', 'b.so', 'c', 'd', 'e', 'f', 'g'];
    const hues = new HueBook();
    hues.learn(treeFromFolded([...files.map((file, i) => `f@${file} ${100 - i}`), 'f@small 1']));
    const before = files.map((file) => hues.toneOf(file));
    expect(new Set(before).size).toBe(7);
    hues.learn(treeFromFolded(files.map((file, i) => `f@${file} ${1 + i}`)));
    expect(files.map((file) => hues.toneOf(file))).toEqual(before);
  });
});
