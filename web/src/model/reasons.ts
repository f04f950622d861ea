// SPDX-License-Identifier: Apache-2.0
// Why a frame has no name: the server's numbers (NameReason of proto/ingest.proto) in words, and how
// much of a profile has none.
import { kNotSymbolized, kOther, reasonOf } from './columns';
import type { FlameTree } from './tree';

const kReasons: Record<number, string> = {
  1: 'its symbols are still being read',
  2: 'its file was gone or not readable',
  3: 'its file has no build id',
  4: 'its file is stripped',
  5: 'no symbol covers the address',
  6: 'its debug file is of another build',
  7: 'reading its symbols takes too much',
  8: 'its file is damaged or no ELF file',
  9: 'code without a file, and no perf map names it',
  10: 'no mapping covers the address',
  11: 'the kernel hides its symbols',
  12: 'its file has no debug information',
  13: 'lines are switched off in the agent',
};

// '' for a frame with a name.
export function reasonText(flags: number): string {
  if (!(flags & kNotSymbolized)) return '';
  return kReasons[reasonOf(flags)] ?? 'no agent has told why';
}

// Values times frames without a name, of all: 0 to 1. Frames that stand for others are not counted.
export function unnamedShare(tree: FlameTree): number {
  let bare = 0;
  let all = 0;
  for (let i = 1; i < tree.size; ++i) {
    if (tree.flags[i] & kOther) continue;
    all += tree.total[i];
    if (tree.flags[i] & kNotSymbolized) bare += tree.total[i];
  }
  return all > 0 ? bare / all : 0;
}

// "src/app.cc:12", the whole path in a title.
export function sourceOf(tree: FlameTree, node: number): { short: string; full: string } {
  const path = tree.names[tree.source[node]] ?? '';
  if (path === '') return { short: '', full: '' };
  const line = tree.line[node] > 0 ? `:${tree.line[node]}` : '';
  return { short: path.split('/').slice(-2).join('/') + line, full: path + line };
}
