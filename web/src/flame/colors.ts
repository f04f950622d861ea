// SPDX-License-Identifier: Apache-2.0
// What colour a box has: the binary picks the hue, the function's name shifts the lightness a
// little so that neighbours differ, the kernel has a hue of its own. Colours are made in OKLCH, where
// equal lightness looks equal; hues that a red-green blind eye confuses differ in lightness.
import { kKernel, kNotSymbolized, kOther } from '../model/columns';
import { hashNames, hashText } from '../model/hash';
import type { FlameTree } from '../model/tree';

export type Theme = 'light' | 'dark';

interface Tone {
  lightness: number;
  chroma: number;
  hue: number;
}

// Blue, yellow, teal, violet, sky, pink, olive. Orange (55°) is the kernel's.
const kUserTones: Record<Theme, Tone[]> = {
  light: [
    { lightness: 0.79, chroma: 0.085, hue: 255 },
    { lightness: 0.91, chroma: 0.1, hue: 98 },
    { lightness: 0.84, chroma: 0.08, hue: 185 },
    { lightness: 0.78, chroma: 0.085, hue: 300 },
    { lightness: 0.88, chroma: 0.06, hue: 225 },
    { lightness: 0.86, chroma: 0.07, hue: 350 },
    { lightness: 0.83, chroma: 0.1, hue: 125 },
  ],
  dark: [
    { lightness: 0.47, chroma: 0.095, hue: 255 },
    { lightness: 0.5, chroma: 0.075, hue: 98 },
    { lightness: 0.44, chroma: 0.07, hue: 190 },
    { lightness: 0.43, chroma: 0.1, hue: 300 },
    { lightness: 0.51, chroma: 0.065, hue: 225 },
    { lightness: 0.49, chroma: 0.08, hue: 350 },
    { lightness: 0.42, chroma: 0.075, hue: 130 },
  ],
};
const kKernelTone: Record<Theme, Tone> = {
  light: { lightness: 0.81, chroma: 0.115, hue: 55 },
  dark: { lightness: 0.48, chroma: 0.1, hue: 48 },
};
const kGreyTone: Record<Theme, Tone> = {
  light: { lightness: 0.87, chroma: 0.006, hue: 260 },
  dark: { lightness: 0.4, chroma: 0.008, hue: 260 },
};
const kMatchTone: Record<Theme, Tone> = {
  light: { lightness: 0.55, chroma: 0.24, hue: 330 },
  dark: { lightness: 0.58, chroma: 0.23, hue: 335 },
};
const kShades = 5;
const kShadeStep: Record<Theme, number> = { light: 0.014, dark: 0.016 };

export interface Rgb {
  r: number;
  g: number;
  b: number;
}

// OKLCH to sRGB after Björn Ottosson, "A perceptual color space for image processing" (2020).
export function fromOklch({ lightness, chroma, hue }: Tone): Rgb {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const channel = (linear: number) => {
    const value = linear <= 0.0031308 ? 12.92 * linear : 1.055 * Math.max(linear, 0) ** (1 / 2.4) - 0.055;
    return Math.round(255 * Math.min(1, Math.max(0, value)));
  };
  return {
    r: channel(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    g: channel(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    b: channel(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  };
}

export function pack({ r, g, b }: Rgb): number {
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0; // bytes in memory: r g b a
}
export function toCss(packed: number): string {
  return `rgb(${packed & 255} ${(packed >>> 8) & 255} ${(packed >>> 16) & 255})`;
}

// WCAG 2 relative luminance and contrast.
function luminance({ r, g, b }: Rgb): number {
  const linear = (value: number) => {
    const v = value / 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
}
export function contrast(a: Rgb, b: Rgb): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

export const kLabelColor: Record<Theme, Rgb> = { light: { r: 24, g: 26, b: 31 }, dark: { r: 244, g: 245, b: 247 } };
export const kMatchLabelColor: Rgb = { r: 255, g: 255, b: 255 };

export interface Palette {
  theme: Theme;
  fills: Uint32Array; // [tone][shade]
  dimmed: Uint32Array; // the same, for what a search does not match or what is above the zoom
  match: number;
  edge: number; // the line below an inlined frame
}

export function makePalette(theme: Theme): Palette {
  const tones = [...kUserTones[theme], kKernelTone[theme], kGreyTone[theme]];
  const shade = (tone: Tone, i: number) => ({ ...tone, lightness: tone.lightness + (i - 2) * kShadeStep[theme] });
  const dim = (tone: Tone) =>
    theme === 'light'
      ? { ...tone, lightness: 0.6 * tone.lightness + 0.385, chroma: 0.22 * tone.chroma }
      : { ...tone, lightness: 0.6 * tone.lightness + 0.06, chroma: 0.25 * tone.chroma };
  const each = (map: (tone: Tone) => Tone) =>
    Uint32Array.from(tones.flatMap((tone) => Array.from({ length: kShades }, (_, i) => pack(fromOklch(map(shade(tone, i)))))));
  return {
    theme,
    fills: each((tone) => tone),
    dimmed: each(dim),
    match: pack(fromOklch(kMatchTone[theme])),
    edge: pack(fromOklch(theme === 'light' ? { lightness: 0.55, chroma: 0.03, hue: 260 } : { lightness: 0.72, chroma: 0.02, hue: 260 })),
  };
}

const kKernelIndex = kUserTones.light.length;
const kGreyIndex = kKernelIndex + 1;

// Binaries get hues by their own time, the largest first; a binary keeps its hue while the page is
// open, so a refresh or a zoom repaints nothing. When all hues are taken, the hash of the name decides.
export class HueBook {
  private readonly tones = new Map<string, number>();

  learn(tree: FlameTree): void {
    const self = new Map<number, number>();
    for (let i = 1; i < tree.size; ++i) {
      if (tree.self[i] > 0 && !(tree.flags[i] & kKernel)) self.set(tree.file[i], (self.get(tree.file[i]) ?? 0) + tree.self[i]);
    }
    for (const [file] of [...self].sort((a, b) => b[1] - a[1])) {
      if (this.tones.size >= kUserTones.light.length) return;
      const name = tree.names[file];
      if (name === '' || this.tones.has(name)) continue;
      const taken = new Set(this.tones.values());
      let tone = hashText(name).low % kUserTones.light.length;
      while (taken.has(tone)) tone = (tone + 1) % kUserTones.light.length;
      this.tones.set(name, tone);
    }
  }

  toneOf(file: string): number {
    return this.tones.get(file) ?? hashText(file).low % kUserTones.light.length;
  }
}

// Index into fills and dimmed per node. Names of a tree are few, nodes are many: per name first.
export function colorIndexes(tree: FlameTree, hues: HueBook): Uint8Array {
  const tones = new Uint8Array(tree.names.length); // of binaries; 255 is not asked yet
  tones.fill(255);
  const shades = Uint8Array.from(hashNames(tree.names).high, (high) => high % kShades);
  return Uint8Array.from(tree.flags, (flags, i) => {
    const file = tree.file[i];
    if (tones[file] === 255) tones[file] = hues.toneOf(tree.names[file]);
    let tone = tones[file];
    if (flags & kKernel) tone = kKernelIndex;
    if (flags & (kOther | kNotSymbolized) || i === 0 || (tree.names[file] === '' && !(flags & kKernel))) tone = kGreyIndex;
    return tone * kShades + shades[tree.name[i]];
  });
}

// The plain colour of a binary, for legends.
export function binaryColor(palette: Palette, hues: HueBook, file: string, kernel: boolean): string {
  const tone = kernel ? kKernelIndex : hues.toneOf(file);
  return toCss(palette.fills[tone * kShades + 2]);
}

// Series colours of the time line, stronger than the boxes; the last is "the rest".
export function seriesColors(theme: Theme): string[] {
  const hues = [255, 55, 165, 310, 95, 215, 20];
  const tones = hues.map((hue, i) => ({
    lightness: (theme === 'light' ? 0.64 : 0.68) + (i % 2 ? 0.07 : 0), chroma: 0.125, hue,
  }));
  return [...tones, { lightness: theme === 'light' ? 0.78 : 0.5, chroma: 0.01, hue: 260 }].map((tone) => toCss(pack(fromOklch(tone))));
}
