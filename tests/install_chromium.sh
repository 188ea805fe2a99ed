#!/bin/sh
# Installs Debian's Chromium, which tests/test_browser.py opens, unless a browser is there already.
set -e
for browser in "$CHROMIUM" chromium chromium-browser google-chrome; do
	if [ -n "$browser" ] && command -v "$browser" >/dev/null; then exit 0; fi
done
if ! command -v apt-get >/dev/null; then
	echo 'no Chromium found: install it, or set CHROMIUM to the path of Chromium or Chrome' >&2
	exit 1
fi
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
echo 'installing Chromium for the tests in the browser' >&2
$as_root apt-get update --quiet=2
$as_root apt-get install --yes --quiet=2 --no-install-recommends chromium >/dev/null
