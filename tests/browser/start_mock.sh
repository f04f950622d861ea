#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the page (unless FIREWATCH_WEB_DIST names a build) and serves it with made-up data on port $1.
set -eu
cd "$(dirname "$0")/../../web"
dist=${FIREWATCH_WEB_DIST:-}
if [ -z "$dist" ]; then
  ./dev/install_modules.sh .
  dist=$PWD/dist
  node node_modules/vite/bin/vite.js build --logLevel error --outDir "$dist" --emptyOutDir
fi
exec node dev/mock_server.mjs --port "$1" --dist "$dist"
