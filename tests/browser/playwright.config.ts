// SPDX-License-Identifier: Apache-2.0
// FIREWATCH_URL is a server with data; without it the page's own mock server is started.
import { defineConfig } from '@playwright/test';

const kMockPort = 7198;
const url = process.env.FIREWATCH_URL;

export default defineConfig({
  testDir: '.',
  fullyParallel: false,
  workers: 1, // the tests share one small machine with the server
  timeout: 90_000,
  expect: { timeout: 15_000 },
  forbidOnly: Boolean(process.env.CI),
  reporter: [['list']],
  use: {
    baseURL: url ?? `http://127.0.0.1:${kMockPort}/`,
    viewport: { width: 1440, height: 900 },
    colorScheme: 'light',
    launchOptions: {
      executablePath: process.env.FIREWATCH_CHROMIUM ?? '/usr/bin/chromium',
      args: [
        '--headless', '--no-sandbox', '--disable-gpu', '--use-angle=swiftshader', '--enable-unsafe-swiftshader',
        '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
        '--disable-sync',
      ],
    },
  },
  webServer: url ? undefined : {
    command: `./start_mock.sh ${kMockPort}`,
    url: `http://127.0.0.1:${kMockPort}/api/v1/status`,
    timeout: 180_000,
    reuseExistingServer: false,
  },
});
