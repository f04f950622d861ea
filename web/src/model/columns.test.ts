// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import { decodeColumns, FormatError } from './columns';
import { columnsFromFolded, encodeColumns, Random, randomColumns } from './testing';

const kSmall = columnsFromFolded(['main@app;work@app 5', 'main@app;größe@libc.so 300', 'main@app 1']);

describe('decodeColumns', () => {
  test('reads back what was written, names with umlauts included', () => {
    expect(decodeColumns(encodeColumns(kSmall))).toEqual(kSmall);
  });

  test('reads literal bytes of a root with one child', () => {
    const bytes = [0x46, 0x57, 0x46, 0x54, 2, 2, 2, 1, 0x74, 2, 0x66, 0x67, // "t", "fg"
      0, 0, /* name */ 0, 1, /* self */ 0, 0xac, 0x02, /* total */ 0xac, 0x02, 0xac, 0x02,
      /* flags */ 0, 0x42, /* file */ 0, 0, /* source */ 0, 1, /* line */ 0, 0x96, 0x01];
    expect(decodeColumns(Uint8Array.from(bytes))).toMatchObject({
      names: ['t', 'fg'],
      total: Float64Array.of(150, 150),
      self: Float64Array.of(0, 150),
      flags: Uint8Array.of(0, 0x42),
      source: Uint32Array.of(0, 1),
      line: Uint32Array.of(0, 150),
    });
  });

  test('keeps values beyond 32 bits exact', () => {
    const columns = columnsFromFolded([`a ${2 ** 51 + 1}`]);
    expect(decodeColumns(encodeColumns(columns)).total[1]).toBe(2 ** 51 + 1);
  });

  test('every truncation is an error, never a shorter tree', () => {
    const bytes = encodeColumns(kSmall);
    for (let length = 0; length < bytes.length; ++length) {
      expect(() => decodeColumns(bytes.subarray(0, length)), `${length} bytes`).toThrow(FormatError);
    }
  });

  test('bytes after the end are an error', () => {
    expect(() => decodeColumns(Uint8Array.of(...encodeColumns(kSmall), 0))).toThrow(/1 bytes too many/);
  });

  test('counts that cannot fit are refused before anything is allocated', () => {
    const huge = [0x46, 0x57, 0x46, 0x54, 2, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0];
    expect(() => decodeColumns(Uint8Array.from(huge))).toThrow(/do not fit/);
  });

  test('a node before its parent is refused', () => {
    expect(() => decodeColumns(encodeColumns({ ...kSmall, parent: Uint32Array.of(0, 0, 2, 2) })))
      .toThrow(/node 2 comes before its parent 2/);
  });

  test('a name outside the table is refused', () => {
    expect(() => decodeColumns(encodeColumns({ ...kSmall, name: Uint32Array.of(0, 1, 2, 99) })))
      .toThrow(/node 3 has name 99/);
  });

  test('totals that are not the sum of self and children are refused', () => {
    expect(() => decodeColumns(encodeColumns({ ...kSmall, total: Float64Array.of(306, 306, 400, 5) })))
      .toThrow(/node 2 has total 400/);
  });

  test('negative values, another version and other bytes are refused by name', () => {
    expect(() => decodeColumns(encodeColumns({ ...kSmall, self: Float64Array.of(0, -1, 5, 300) })))
      .toThrow(/negative self/);
    const newer = encodeColumns(kSmall);
    newer[4] = 3;
    expect(() => decodeColumns(newer)).toThrow(/version 3/);
    expect(() => decodeColumns(new TextEncoder().encode('<!doctype html>'))).toThrow(/not a flame tree/);
  });

  test('random damage never throws anything but FormatError', () => {
    const random = new Random(7);
    const good = encodeColumns(randomColumns(random, 300, 9, 20));
    for (let round = 0; round < 3000; ++round) {
      const bytes = good.slice();
      for (let i = 0; i < 3; ++i) bytes[random.below(bytes.length)] = random.below(256);
      try {
        decodeColumns(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
      }
    }
  });
});
