"""Talks to a running "nac serve" with Triton's own Python client.

    pip install 'tritonclient[http]'
    nac serve --listen 127.0.0.1:18080 DETECTOR.nac &
    python bench/serve/triton.py 127.0.0.1:18080 DETECTOR-NAME IMAGE...

Checks health, metadata, image files (BYTES) against POST /score, tensors (FP32) as
JSON against binary ones, and errors.
"""

import http.client
import json
import sys

import numpy as np
import tritonclient.http as triton


def plain(address, name, data):
    c = http.client.HTTPConnection(address)
    c.request("POST", "/score/" + name, data)
    return json.loads(c.getresponse().read())


def main(address, name, paths):
    c = triton.InferenceServerClient(address)
    assert c.is_server_live() and c.is_server_ready() and c.is_model_ready(name)
    print(c.get_server_metadata())
    inputs = {i["name"]: i for i in c.get_model_metadata(name)["inputs"]}

    files = [open(p, "rb").read() for p in paths]
    encoded = triton.InferInput("encoded", [len(files)], "BYTES")
    encoded.set_data_from_numpy(np.array(files, dtype=object))
    r = c.infer(name, [encoded])
    want = [plain(address, name, f) for f in files]
    for output, key in (("score", "score"), ("p_value", "p_value"), ("ood", "ood"), ("class", "class")):
        got = r.as_numpy(output).tolist()
        assert got == [w[key] for w in want], (output, got, want)
    print(len(files), "image files: as POST /score")

    shape = [4] + [int(n) for n in inputs["images"]["shape"][1:]]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    scores = []
    for binary in (True, False):
        images = triton.InferInput("images", shape, "FP32")
        images.set_data_from_numpy(x, binary_data=binary)
        asked = [triton.InferRequestedOutput("score", binary_data=binary)]
        r = c.infer(name, [images], outputs=asked, request_id="7")
        assert r.get_response()["id"] == "7"
        scores.append(r.as_numpy("score"))
    assert (scores[0] == scores[1]).all(), scores
    print("tensors: JSON and binary give the same scores")

    try:
        c.infer("nobody", [images])
    except triton.InferenceServerException as e:
        print("error as the client shows it:", e)
    else:
        raise AssertionError("a detector that is not there answered")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
