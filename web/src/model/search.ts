// SPDX-License-Identifier: Apache-2.0
// Search over the names of a tree: a substring (no case), or /regex/ with an optional i. A node
// matches when its function or its binary does.
import type { FlameTree } from './tree';

export interface Matches {
  node: Uint8Array; // 1: this node matches
  before: Uint32Array; // before[i]: matching nodes among 0 … i-1, so a range is one subtraction
  count: number;
  covered: number; // value under the topmost matches: recursion is counted once
}

export type NameTest = (name: string) => boolean;

// Throws SyntaxError with the engine's text when a /regex/ does not compile.
export function compileSearch(text: string): NameTest | null {
  const trimmed = text.trim();
  if (trimmed === '') return null;
  const regex = /^\/(.+)\/(i?)$/.exec(trimmed);
  if (regex) {
    const compiled = new RegExp(regex[1], regex[2]);
    return (name) => compiled.test(name);
  }
  const needle = trimmed.toLowerCase();
  return (name) => name.toLowerCase().includes(needle);
}

export function findMatches(tree: FlameTree, test: NameTest, withFiles = true): Matches {
  const byName = Uint8Array.from(tree.names, (name) => (test(name) ? 1 : 0));
  const node = new Uint8Array(tree.size);
  const before = new Uint32Array(tree.size + 1);
  const inside = new Uint8Array(tree.size);
  let count = 0;
  let covered = 0;
  for (let i = 0; i < tree.size; ++i) {
    // The root is named "total" and is nobody's function.
    const hit = i > 0 && (byName[tree.name[i]] || (withFiles && byName[tree.file[i]])) ? 1 : 0;
    node[i] = hit;
    before[i] = count;
    count += hit;
    const above = i > 0 && inside[tree.parent[i]];
    if (hit && !above) covered += tree.total[i];
    inside[i] = above || hit ? 1 : 0;
  }
  before[tree.size] = count;
  return { node, before, count, covered };
}

// What of `covered` lies below (or is) `root`: the share within a zoomed view.
export function coveredBelow(tree: FlameTree, matches: Matches, root: number): number {
  if (root === 0) return matches.covered;
  for (let up = root; up !== 0; up = tree.parent[up]) {
    if (matches.node[up]) return tree.total[root];
  }
  let sum = 0;
  let from = root;
  let to = root + 1;
  // Level by level the descendants of one node are adjacent, too.
  const inside = new Set<number>();
  while (from < to) {
    let nextFrom = -1;
    let nextTo = -1;
    for (let i = from; i < to; ++i) {
      const above = i !== root && inside.has(tree.parent[i]);
      if (matches.node[i] && !above) sum += tree.total[i];
      if (matches.node[i] || above) inside.add(i);
      if (tree.childCount[i] > 0) {
        if (nextFrom < 0) nextFrom = tree.firstChild[i];
        nextTo = tree.firstChild[i] + tree.childCount[i];
      }
    }
    if (nextFrom < 0) break;
    from = nextFrom;
    to = nextTo;
  }
  return sum;
}
