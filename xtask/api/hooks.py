"""What schemathesis cannot make up by itself: documents that exist, places in them, and bodies that are Automerge's.

Everything is chosen by what was made up, so that a seed repeats it.
"""

import json
import os
import random
import urllib.request
import zlib

import schemathesis

AUTOMERGE = "application/vnd.automerge"
CONTENT = {
    "text": "Low water at six.",
    "list": ["one", {"two": 2}, [3], None],
    "count": {"$counter": 5},
    "at": {"$date": "2026-11-25T01:02:03.004Z"},
    "bytes": {"$bytes": "AAECAw=="},
    "map": {"a": {"b": {"c": 1.5}}, "e~/": True},
}
POINTERS = ["", "/text", "/list", "/list/0", "/list/1/two", "/list/-", "/list/9", "/count", "/at", "/bytes", "/map", "/map/a/b", "/map/e~0~1", "/new"]
DOCUMENTS = 5

documents = []
hashes = []
chunks = []


def ask(path, method="GET", body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(os.environ["HIGHWATER"] + path, data, headers or {}, method=method)
    with urllib.request.urlopen(asked) as answer:
        return answer.read()


def make_documents():
    for _ in range(DOCUMENTS + 1):
        made = json.loads(ask("/v1/docs", "POST", CONTENT, {"content-type": "application/json"}))
        documents.append(made["id"])
        document = f"/v1/docs/{made['id']}"
        for number in range(3):
            patch = {"map": {"a": {"b": {"c": number}}}}
            ask(document, "PATCH", patch, {"content-type": "application/merge-patch+json"})
        chunks.append(ask(document, headers={"accept": AUTOMERGE}))
        changes = json.loads(ask(f"{document}/changes"))["changes"]
        hashes.append([change["hash"] for change in changes])
        chunks.append(ask(f"{document}/changes?limit=1", headers={"accept": AUTOMERGE}))


make_documents()
puts_in_real_documents = "HIGHWATER_REAL_DOCUMENTS" in os.environ


def when_wanted(change):
    return schemathesis.hook(change) if puts_in_real_documents else change


def dice(*about):
    return random.Random(zlib.crc32(repr(about).encode()))


def some_hash(about):
    roll = dice("hash", about)
    return roll.choice(roll.choice(hashes))


@when_wanted
def map_path_parameters(context, path_parameters):
    if not path_parameters:
        return path_parameters
    roll = dice(path_parameters)
    # Some stay, and name documents that do not exist.
    if "id" in path_parameters and roll.random() < 0.9:
        is_deleted = context.operation is not None and context.operation.method.upper() == "DELETE"
        # The last one is there to be deleted.
        place = DOCUMENTS if is_deleted else roll.randrange(DOCUMENTS)
        path_parameters["id"] = roll.choice(["", "automerge:"]) + documents[place]
        if "hash" in path_parameters and roll.random() < 0.7:
            path_parameters["hash"] = roll.choice(hashes[place])
    return path_parameters


@when_wanted
def map_query(context, query):
    for name in ["heads", "since", "from", "to", "after", "before"]:
        if query and len(str(query.get(name) or "")) >= 64 and dice(name, query).random() < 0.8:
            query[name] = some_hash((name, query))
    return query


@when_wanted
def map_body(context, body):
    if not isinstance(body, list):
        return body
    for operation in body:
        if isinstance(operation, dict):
            roll = dice(operation)
            for name in ["path", "from"]:
                if name in operation and roll.random() < 0.9:
                    operation[name] = roll.choice(POINTERS)
            for name in ["index", "delete"]:
                if isinstance(operation.get(name), int) and roll.random() < 0.8:
                    operation[name] = roll.randrange(4)
    return body


@schemathesis.serializer(AUTOMERGE)
def serialize(context, value):
    """Chunks that are whole, and others that have a byte changed or are cut off."""
    roll = dice(value)
    if not puts_in_real_documents or roll.random() < 0.2:
        return value if isinstance(value, bytes) else str(value).encode()
    chunk = bytearray(roll.choice(chunks))
    if roll.random() < 0.3:
        chunk[roll.randrange(len(chunk))] ^= 1 << roll.randrange(8)
    if roll.random() < 0.2:
        del chunk[roll.randrange(len(chunk)):]
    return bytes(chunk)


@schemathesis.deserializer(AUTOMERGE)
def deserialize(context, response):
    return response.content.decode("latin-1")
