// SPDX-License-Identifier: Apache-2.0
// Light or dark: as the system says, until the user chooses. The choice is the user's, not the
// view's, so it is kept in this browser and is in no link.
import { computed, effect, signal } from '@preact/signals';
import type { Theme } from './flame/colors';

export type ThemeChoice = 'auto' | Theme;
const kKey = 'firewatch.theme';

function stored(): ThemeChoice {
  try {
    const value = localStorage.getItem(kKey);
    return value === 'light' || value === 'dark' ? value : 'auto';
  } catch {
    return 'auto'; // storage switched off
  }
}

export const themeChoice = signal<ThemeChoice>(stored());
const systemDark = matchMedia('(prefers-color-scheme: dark)');
const system = signal<Theme>(systemDark.matches ? 'dark' : 'light');
systemDark.addEventListener('change', () => (system.value = systemDark.matches ? 'dark' : 'light'));

export const theme = computed<Theme>(() => (themeChoice.value === 'auto' ? system.value : themeChoice.value));

export function cycleTheme(): void {
  const order: ThemeChoice[] = ['auto', 'light', 'dark'];
  themeChoice.value = order[(order.indexOf(themeChoice.value) + 1) % 3];
  try {
    if (themeChoice.value === 'auto') localStorage.removeItem(kKey);
    else localStorage.setItem(kKey, themeChoice.value);
  } catch {
    // Not remembered, then.
  }
}

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});
