#!/bin/bash
# browser.sh URL OUT: the page of a running "nac serve" in headless Chromium, on a desk and
# on a phone, light and dark; then what the page's script has made is checked. Pictures go to
# the folder OUT. The server must have scored a few images.
set -euo pipefail
[ $# -eq 2 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
url=$1 out=$2
mkdir -p "$out"
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
chrome() {
  timeout 120 "${CHROMIUM:-chromium}" --headless=new --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" \
    --virtual-time-budget=3000 "$@" "$url" 2>>"$out/chromium.log"
}
chrome --dump-dom >"$out/page.html"
for want in '<section>' '<svg ' 'data-alarm=' 'Images seen' 'KS distance' 'Least like them'; do
  grep -q -- "$want" "$out/page.html" || { echo "the page has no $want"; exit 1; }
done
grep -q 'id="error" role="alert" hidden' "$out/page.html" || { echo "the page shows an error"; exit 1; }
for size in 1100,900 500,1100; do # headless Chromium's windows are no narrower than 500
  for scheme in dark light; do
    chrome --window-size=$size --blink-settings=preferredColorScheme=$([ $scheme = dark ] && echo 0 || echo 1) \
      --screenshot="$out/$size-$scheme.png" >/dev/null
  done
  ! cmp -s "$out/$size-dark.png" "$out/$size-light.png" || { echo "$size: dark is as light"; exit 1; }
done
echo "the page is whole; see $out"
