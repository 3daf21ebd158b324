"""The page of a running "nac serve" as phones show it, light and dark, in headless Chromium.

    pip install websocket-client
    python bench/serve/phone.py http://127.0.0.1:18080/ pictures

Checks over Chromium's debugging protocol that nothing is wider than the screen, that the
histogram is there and that dark is dark; pictures go to the folder. The server must
have scored a few images. $CHROMIUM names the browser.
"""

import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import websocket


def connect(profile):
    """Waits for the port that the browser has chosen, and opens a page."""
    port_file = pathlib.Path(profile, "DevToolsActivePort")
    while not port_file.exists() or not port_file.read_text().strip():
        time.sleep(0.2)
    port, path = port_file.read_text().split()
    return websocket.create_connection(f"ws://127.0.0.1:{port}{path}", timeout=120)


def main(url, out):
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [os.environ.get("CHROMIUM", "chromium"), "--headless=new", "--no-sandbox", "--disable-gpu",
             "--remote-debugging-port=0", "--remote-allow-origins=*", "--user-data-dir=" + profile, "about:blank"],
            stderr=subprocess.DEVNULL)
        try:
            check(connect(profile), url, out)
        finally:
            browser.terminate()
            browser.wait()


def check(ws, url, out):
    number, session = 0, None

    def call(method, **params):
        nonlocal number
        number += 1
        message = {"id": number, "method": method, "params": params}
        ws.send(json.dumps(message if session is None else message | {"sessionId": session}))
        while True:
            answer = json.loads(ws.recv())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    target = call("Target.createTarget", url="about:blank")["targetId"]
    session = call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for width in (320, 390):
        brightness = {}
        for scheme in ("light", "dark"):
            call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=2, mobile=True)
            call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            call("Page.navigate", url=url)
            end = time.time() + 30
            while True:
                value = call("Runtime.evaluate", expression="""JSON.stringify({
                    wide: document.documentElement.scrollWidth, charts: document.querySelectorAll('section svg').length,
                    color: getComputedStyle(document.body).backgroundColor})""")["result"].get("value")
                found = json.loads(value) if value else {"charts": 0}  # there may be no document yet
                if found["charts"] or time.time() > end:
                    break
                time.sleep(0.2)
            assert found["charts"], f"{width} {scheme}: no histogram"
            assert found["wide"] <= width, f"{width} {scheme}: {found['wide']} pixels wide"
            brightness[scheme] = sum(int(x) for x in found["color"].strip("rgb()").split(",")[:3])
            picture = call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
            pathlib.Path(out, f"phone-{width}-{scheme}.png").write_bytes(base64.b64decode(picture))
        assert brightness["dark"] < 200 < 500 < brightness["light"], brightness
    print("the page fits phones, light and dark; see", out)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
