// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest';
import { completeStacks } from './stack_ends';

test('stacks without a user part are neither complete nor incomplete', () => {
  expect(completeStacks({ root: 97, no_table: 2, truncated: 1, no_user_stack: 900, memory_gone: 3 })).toEqual({ complete: 97, all: 100 });
});

test('nothing is complete where only frame pointers were followed', () => {
  expect(completeStacks({ frame_pointer_end: 5 })).toEqual({ complete: 0, all: 5 });
  expect(completeStacks({})).toEqual({ complete: 0, all: 0 });
});
