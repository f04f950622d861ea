// SPDX-License-Identifier: Apache-2.0
// How stacks ended, as the server sums it up by reason.

// Reasons that say nothing about the unwinder: there was no user stack to walk.
const kNoStack = new Set(['no_user_stack', 'memory_gone']);
const kComplete = 'root';

export function hadUserStack(reason: string): boolean {
  return !kNoStack.has(reason);
}

// Stacks that end at a proven root and all stacks with a user part.
export function completeStacks(ends: Record<string, number>): { complete: number; all: number } {
  let all = 0;
  for (const [reason, count] of Object.entries(ends)) if (hadUserStack(reason)) all += count;
  return { complete: ends[kComplete] ?? 0, all };
}
