// SPDX-License-Identifier: Apache-2.0
// 64-bit hashes for links: a path of C++ names may be 30 KB long, its hash is 16 digits. Not
// cryptographic; two 32-bit lanes, each a multiply-xor mix.

export interface Hash64 {
  high: number;
  low: number;
}

export function hashText(text: string): Hash64 {
  let high = 0x9e3779b9;
  let low = 0x85ebca6b;
  for (let i = 0; i < text.length; ++i) {
    const unit = text.charCodeAt(i);
    high = Math.imul(high ^ unit, 0x01000193);
    low = Math.imul(low ^ unit, 0x5bd1e995);
    low ^= low >>> 13;
  }
  return { high: finish(high ^ text.length), low: finish(low) };
}

// The hashes of a tree's names; made once per list of names.
export interface NameHashes {
  high: Uint32Array;
  low: Uint32Array;
}
const made = new WeakMap<string[], NameHashes>();

export function hashNames(names: string[]): NameHashes {
  let hashes = made.get(names);
  if (!hashes) {
    hashes = { high: new Uint32Array(names.length), low: new Uint32Array(names.length) };
    for (let i = 0; i < names.length; ++i) {
      const { high, low } = hashText(names[i]);
      hashes.high[i] = high;
      hashes.low[i] = low;
    }
    made.set(names, hashes);
  }
  return hashes;
}

// Index of the name or node with this hash, or -1.
export function indexOfHash(hashes: NameHashes, hash: Hash64): number {
  for (let i = 0; i < hashes.high.length; ++i) {
    if (hashes.low[i] === hash.low && hashes.high[i] === hash.high) return i;
  }
  return -1;
}

// How a child's path hash follows from its parent's and its own name's.
export function mixHigh(parent: number, name: number): number {
  return finish(Math.imul(parent ^ (parent >>> 15), 0x2c1b3c6d) ^ name);
}
export function mixLow(parent: number, name: number): number {
  return finish(Math.imul(parent ^ (parent >>> 13), 0x297a2d39) ^ name);
}

function finish(value: number): number {
  value ^= value >>> 16;
  value = Math.imul(value, 0x7feb352d);
  value ^= value >>> 15;
  value = Math.imul(value, 0x846ca68b);
  return (value ^ (value >>> 16)) >>> 0;
}

export function hashToHex(hash: Hash64): string {
  return hash.high.toString(16).padStart(8, '0') + hash.low.toString(16).padStart(8, '0');
}

export function hexToHash(text: string): Hash64 | null {
  if (!/^[0-9a-f]{16}$/.test(text)) return null;
  return { high: parseInt(text.slice(0, 8), 16), low: parseInt(text.slice(8), 16) };
}
