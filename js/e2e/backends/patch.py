"""A backend in Python, with nothing but its standard library: patches a document over HTTP beside people who type into it.

It prints a line of JSON for every edit that was answered with 200, and ends when its input does.
"""

import json
import os
import random
import sys
import threading
import urllib.error
import urllib.request
import uuid

DOCUMENT = f"{os.environ['HIGHWATER']}/v1/docs/{os.environ['ID']}"
# Every edit of the text puts in a character that nobody else has, so many times.
FIRST_CHARACTER = 0x4E00
TIMES = 3
ATTEMPTS_MAX = 20

dice = random.Random(int(os.environ["SEED"]))


class Stale(Exception):
    """The document is not as it was read."""


def request(method, body=None, kind=None, headers=()):
    data = None if body is None else json.dumps(body).encode()
    head = dict(headers, **({"content-type": kind} if kind else {}))
    asked = urllib.request.Request(DOCUMENT, data, head, method=method)
    try:
        with urllib.request.urlopen(asked) as answer:
            return json.load(answer), answer.headers["etag"]
    except urllib.error.HTTPError as error:
        problem = error.read().decode()
        # A place in the text is not there any more if somebody has taken out what stood before it.
        if error.code == 412 or json.loads(problem).get("code") == "out_of_bounds":
            raise Stale from None
        raise SystemExit(f"{method} {DOCUMENT}: {error.code} {problem}") from None


def patch(operations, tag=None):
    return send(operations, "application/json-patch+json", tag)


def send(body, kind, tag=None):
    headers = {"idempotency-key": str(uuid.uuid4())}
    if tag:
        headers["if-match"] = tag
    answer, _ = request("PATCH", body, kind, headers)
    if dice.random() < 0.2:
        # As if the answer had been lost.
        again, _ = request("PATCH", body, kind, headers)
        assert again["hash"] == answer["hash"], (again, answer)
    return answer["hash"]


def on_what_was_read(edit, is_strict=True):
    """Makes an edit that depends on what the document holds; if it is strict, on all of it. Gives up if people are faster every time."""
    for _ in range(ATTEMPTS_MAX):
        value, tag = request("GET")
        try:
            return patch(edit(value), tag if is_strict else None)
        except Stale:
            continue
    return None


def inserted(text, token):
    place = dice.randint(0, len(text))
    return text[:place] + token + text[place:]


def edits():
    """Names of edits, what each is about, and what makes it: a function that returns the change's hash."""
    texts, items = [], []
    number = 0
    while True:
        number += 1
        name = f"python-{number}"
        token = chr(FIRST_CHARACTER + number) * TIMES
        kind = dice.choice(["splice", "set text", "unset text", "merge", "append", "insert", "set list", "unset list", "count"])
        if kind == "splice":
            yield kind, token, lambda: on_what_was_read(
                lambda value: [{"op": "splice", "path": "/text", "index": dice.randint(0, len(value["text"])), "insert": token}],
                is_strict=False)
            texts.append(token)
        elif kind == "set text":
            yield kind, token, lambda: on_what_was_read(
                lambda value: [{"op": "replace", "path": "/text", "value": inserted(value["text"], token)}])
            texts.append(token)
        elif kind == "unset text" and texts:
            token = texts.pop(dice.randrange(len(texts)))
            yield kind, token, lambda: on_what_was_read(
                lambda value: [{"op": "replace", "path": "/text", "value": value["text"].replace(token[0], "")}])
        elif kind == "merge":
            yield kind, name, lambda: send({"notes": {name: {"by": "python", "number": number}}}, "application/merge-patch+json")
        elif kind == "append":
            yield kind, name, lambda: patch([{"op": "add", "path": "/list/-", "value": name}])
            items.append(name)
        elif kind == "insert":
            yield kind, name, lambda: patch([{"op": "splice", "path": "/list", "index": 0, "insert": [name]}])
            items.append(name)
        elif kind == "set list":
            yield kind, name, lambda: on_what_was_read(
                lambda value: [{"op": "replace", "path": "/list", "value": [*value["list"][:1], name, *value["list"][1:]]}])
            items.append(name)
        elif kind == "unset list" and items:
            name = items.pop(dice.randrange(len(items)))
            yield kind, name, lambda: on_what_was_read(
                lambda value: [{"op": "replace", "path": "/list", "value": [item for item in value["list"] if item != name]}])
        elif kind == "count":
            yield kind, name, lambda: patch([{"op": "increment", "path": "/count", "by": 1}])


ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
for kind, about, make in edits():
    change = make()
    if change is not None:
        print(json.dumps({"kind": kind, "about": about, "hash": change}), flush=True)
    if ended.is_set():
        break
