#!/usr/bin/env python3
"""Records what a real API server answers, for the golden tests of the schema and patch modules.

Usage: record.py DIRECTORY, with KUBECONFIG naming a throw-away cluster (a control plane is enough) and
kubectl on PATH. Writes one JSON file per suite. The tests replay the requests and compare the answers; they
do not need a cluster. Everything is deterministic but times, identities and versions, which are left out.
"""

import json
import pathlib
import random
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

GROUP = "golden.example.com"
VERSION = f"{GROUP}/v1"


class Server:
    """The API server behind `kubectl proxy`."""

    def __init__(self):
        self.proxy = subprocess.Popen(
            ["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True
        )
        address = re.search(r"127\.0\.0\.1:\d+", self.proxy.stdout.readline()).group()
        self.base = f"http://{address}"

    def close(self):
        self.proxy.terminate()
        self.proxy.wait()

    def call(self, method, path, body=None, content_type="application/json"):
        """The status code, the parsed answer and the warnings."""
        data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
        request = urllib.request.Request(self.base + path, data=data, method=method)
        if data is not None:
            request.add_header("Content-Type", content_type)
        try:
            with urllib.request.urlopen(request) as answer:
                code, headers, text = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            code, headers, text = error.code, error.headers, error.read()
        warnings = [
            re.match(r'299 - "(.*)"$', w).group(1).replace('\\"', '"')
            for w in headers.get_all("Warning") or []
        ]
        try:
            answer = json.loads(text)
        except ValueError:
            answer = {"message": text.decode()}
        return code, answer, warnings

    def define(self, plural, kind, schema, subresources=None):
        """Replaces a CRD and waits until it is served."""
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        name = f"{plural}.{GROUP}"
        self.call("DELETE", f"{crds}/{name}")
        crd = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": name},
            "spec": {
                "group": GROUP,
                "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": kind + "List"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": schema},
                        "subresources": subresources or {},
                    }
                ],
            },
        }
        deadline = time.monotonic() + 60
        while True:
            code, answer, _ = self.call("POST", crds, crd)
            if code == 201:
                break
            if code != 409 or time.monotonic() > deadline:
                raise SystemExit(f"{name}: {answer}")
            time.sleep(0.1)
        # The schema is served a moment after the definition is established.
        collection = f"/apis/{VERSION}/namespaces/default/{plural}"
        served = 0
        while served < 5:
            code, _, _ = self.call("GET", collection)
            served = served + 1 if code == 200 else 0
            time.sleep(0.1)
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} is not served")
        return collection


def plain(thing):
    """An object without what differs from run to run."""
    if isinstance(thing, dict) and "metadata" in thing:
        thing = dict(thing, metadata=dict(thing["metadata"]))
        for key in ("uid", "resourceVersion", "creationTimestamp", "generation"):
            thing["metadata"].pop(key, None)
        for entry in thing["metadata"].get("managedFields", []):
            entry["timed"] = entry.pop("time", None) is not None
    return thing


def answer_of(code, answer, warnings):
    """What a test compares: the object, or the error."""
    result = {"code": code}
    if code < 300:
        result["object"] = plain(answer)
    else:
        result["message"] = answer.get("message")
        causes = (answer.get("details") or {}).get("causes")
        if causes:
            result["causes"] = causes
    if warnings:
        result["warnings"] = warnings
    return result


APPLY_SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "replicas": {"type": "integer"},
                "name": {"type": "string"},
                "mode": {"type": "string", "default": "Running"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "selector": {
                    "type": "object",
                    "x-kubernetes-map-type": "atomic",
                    "additionalProperties": {"type": "string"},
                },
                "args": {"type": "array", "items": {"type": "string"}},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port", "protocol"],
                    "items": {
                        "type": "object",
                        "required": ["port"],
                        "properties": {
                            "port": {"type": "integer"},
                            "protocol": {"type": "string", "default": "TCP"},
                            "name": {"type": "string"},
                            "target": {"x-kubernetes-int-or-string": True},
                        },
                    },
                },
                "byName": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "properties": {"size": {"type": "integer"}, "note": {"type": "string"}},
                    },
                },
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def random_spec(rng):
    """A spec of APPLY_SCHEMA with some of its fields."""
    spec = {}

    def put(name, value):
        if rng.random() < 0.5:
            spec[name] = value()

    def some(values, low=0):
        return rng.sample(values, rng.randint(low, len(values)))

    put("replicas", lambda: rng.randint(0, 2))
    put("name", lambda: rng.choice("xy"))
    put("labels", lambda: {k: rng.choice("xy") for k in some("abc")})
    put("selector", lambda: {k: rng.choice("xy") for k in some("ab", 1)})
    put("args", lambda: some("abc"))
    put("tags", lambda: some("abcde"))
    put(
        "ports",
        lambda: [
            {
                "port": port,
                **rng.choice([{}, {"protocol": "UDP"}]),
                **rng.choice([{}, {"name": "a"}, {"name": "b"}]),
                **rng.choice([{}, {"target": 1}, {"target": "x"}]),
            }
            for port in some([80, 81, 82])
        ],
    )
    put("byName", lambda: {k: rng.choice([{}, {"size": 1}, {"note": "n"}, {"size": 2, "note": "m"}]) for k in some("ab")})
    put(
        "free",
        lambda: {
            k: rng.choice([1, "x", True, [1, 2], {"a": 1}, {"b": {"c": "d"}}, {}, []]) for k in some("abc")
        },
    )
    return spec


def record_apply(server):
    """Sequences of applies and updates by several managers."""
    collection = server.define("things", "Thing", APPLY_SCHEMA, {"status": {}})
    sequences = []
    for seed in range(40):
        rng = random.Random(seed)
        name = f"thing-{seed}"
        steps = []
        for _ in range(rng.randint(3, 7)):
            manager = rng.choice(["a", "b", "c"])
            spec = random_spec(rng)
            kind = rng.choices(["apply", "update", "status"], [5, 2, 1])[0]
            if not steps and rng.random() < 0.8:
                kind = "apply"
            step = {"kind": kind, "manager": manager}
            if kind == "apply":
                step["force"] = rng.random() < 0.4
                step["body"] = {
                    "apiVersion": VERSION,
                    "kind": "Thing",
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": spec,
                }
                path = f"{collection}/{name}?fieldManager={manager}&force={str(step['force']).lower()}"
                answer = server.call("PATCH", path, step["body"], "application/apply-patch+yaml")
            elif not steps:
                step["kind"] = "create"
                step["body"] = {
                    "apiVersion": VERSION,
                    "kind": "Thing",
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": spec,
                }
                answer = server.call("POST", f"{collection}?fieldManager={manager}", step["body"])
            else:
                field, suffix = ("spec", "") if kind == "update" else ("status", "/status")
                value = spec if kind == "update" else rng.choice([{"a": 1}, {"a": 2, "b": {"c": 1}}, {}])
                step["field"], step["value"] = field, value
                patch = [{"op": "add", "path": f"/{field}", "value": value}]
                path = f"{collection}/{name}{suffix}?fieldManager={manager}"
                answer = server.call("PATCH", path, patch, "application/json-patch+json")
            step["answer"] = answer_of(*answer)
            steps.append(step)
        sequences.append(steps)
        server.call("DELETE", f"{collection}/{name}")
    return {"schema": APPLY_SCHEMA, "sequences": sequences}


# Properties of `spec`, and values for each of them.
VALUES = [
    ({"type": "integer"}, [1, 1.0, 1.5, "x", True, [], {}, 9223372036854775807, 1e300]),
    ({"type": "integer", "format": "int32"}, [1, 3000000000, -3000000000, 1.5, "x", True]),
    ({"type": "integer", "format": "int64"}, [1, 9223372036854775807]),
    ({"type": "integer", "minimum": 1, "maximum": 3}, [0, 1, 3, 4]),
    ({"type": "integer", "minimum": 1, "exclusiveMinimum": True, "multipleOf": 2}, [1, 2, 3, -2]),
    ({"type": "number"}, [1, 1.5, "1"]),
    ({"type": "number", "format": "float"}, [1.5, 1e300]),
    ({"type": "number", "maximum": 1.5, "exclusiveMaximum": True}, [1.4, 1.5, 2]),
    ({"type": "boolean"}, [True, "true", 1]),
    ({"type": "string"}, ["", 1, True, {}, []]),
    ({"type": "string", "nullable": True}, [None, "x"]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["a", "ab", "abcd", "\u00e9\u00e9"]),
    ({"type": "string", "pattern": "^[a-z]+$"}, ["abc", "ABC", "a\nb"]),
    ({"type": "string", "pattern": "^\\d{2}[[]$"}, ["12[", "1["]),
    ({"type": "string", "enum": ["a", "b"]}, ["a", "c", ""]),
    ({"type": "integer", "enum": [1, 2]}, [1, 3]),
    ({"type": "string", "format": "date-time"}, ["2026-01-02T03:04:05Z", "2026-01-02", "x", 5, "2026-01-02T03:04:05+01:00"]),
    ({"type": "string", "format": "date"}, ["2026-01-02", "2026-13-02"]),
    ({"type": "string", "format": "duration"}, ["1h", "1 day", "x", ""]),
    ({"type": "string", "format": "byte"}, ["aGk=", "aGk", "%"]),
    ({"type": "string", "format": "uri"}, ["http://a/b", "/a", "a", "urn:x", "http://a b"]),
    ({"type": "string", "format": "email"}, ["a@b.c", "a", "A <a@b>"]),
    ({"type": "string", "format": "hostname"}, ["a.example.com", "-a", "a_b", "a"]),
    ({"type": "string", "format": "ipv4"}, ["10.0.0.1", "::1", "10.0.0.256"]),
    ({"type": "string", "format": "ipv6"}, ["::1", "10.0.0.1"]),
    ({"type": "string", "format": "cidr"}, ["10.0.0.0/8", "10.0.0.0", "::/0"]),
    ({"type": "string", "format": "mac"}, ["00:11:22:33:44:55", "00:11"]),
    ({"type": "string", "format": "uuid"}, ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "x"]),
    ({"type": "string", "format": "uuid4"}, ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-1ef8-bb6d-6bb9bd380a11"]),
    ({"type": "string", "format": "hexcolor"}, ["#fff", "#ff"]),
    ({"type": "string", "format": "isbn"}, ["0321751043", "0321751044"]),
    ({"type": "string", "format": "k8s-short-name"}, ["a-b", "A", "a.b"]),
    ({"type": "string", "format": "k8s-long-name"}, ["a.b", "a..b"]),
    ({"type": "string", "format": "unheard-of"}, ["x"]),
    ({"x-kubernetes-int-or-string": True}, [1, "1", True, 1.5, {}]),
    ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^[0-9]+%$"}, [1, "1%", "1"]),
    ({"x-kubernetes-preserve-unknown-fields": True}, [1, "x", {"a": {"b": None}}, [None]]),
    ({"type": "array", "items": {"type": "integer", "maximum": 3}, "minItems": 1, "maxItems": 2}, [[], [1], [1, 2, 3], [4], ["x"], {}]),
    ({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}, [["a", "b"], ["a", "a", "a", "b", "b"]]),
    (
        {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k", "l"],
            "items": {
                "type": "object",
                "required": ["k"],
                "properties": {"k": {"type": "string"}, "l": {"type": "string", "default": "d"}, "v": {"type": "integer"}},
            },
        },
        [[{"k": "a"}, {"k": "a", "l": "x"}], [{"k": "a"}, {"k": "a", "l": "d"}], [{}], ["x"], [{"k": "a", "z": 1}]],
    ),
    ({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1, "maxProperties": 2}, [{}, {"a": 1}, {"a": 1, "b": 2, "c": 3}, {"a": "x"}]),
    ({"type": "object", "additionalProperties": True}, [{"a": 1, "b": {"c": 1}}]),
    ({"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}, [{}, {"a": "x"}, {"a": 1, "b": "x"}, {"a": None, "b": "x"}]),
    (
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{}, {"a": 1}, {"a": 1, "b": 1}],
    ),
    (
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "anyOf": [{"properties": {"a": {"maximum": 1}}}, {"required": ["b"]}]},
        [{"a": 1}, {"a": 2}, {"a": 2, "b": 1}],
    ),
    ({"type": "integer", "allOf": [{"minimum": 1}, {"maximum": 3}]}, [2, 0, 4]),
    ({"type": "integer", "not": {"enum": [3]}}, [2, 3]),
    (
        {
            "type": "object",
            "default": {},
            "properties": {
                "size": {"type": "integer", "default": 3},
                "note": {"type": "string", "nullable": True, "default": "n"},
                "plain": {"type": "string"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
                "levels": {"type": "array", "items": {"type": "integer", "default": 1}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        },
        [
            {},
            None,
            {"size": None, "note": None, "plain": None},
            {"list": [{}, {"p": "UDP"}, {"p": None}], "levels": [None, 2], "labels": {"a": None, "b": "c"}},
            {"unknown": 1, "list": [{"unknown": 1}]},
        ],
    ),
    (
        {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {"known": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        },
        [{"x": {"y": 1}, "known": {"a": 1, "b": 2}}],
    ),
    (
        {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
        [{}, {"apiVersion": "v1", "kind": "Pod", "x": 1}, {"apiVersion": "a/b/c", "kind": "x y"}, {"apiVersion": "", "kind": ""}],
    ),
    (
        {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {"type": "object"}}},
        [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n", "labels": {"a": "b"}, "zzz": 1}, "spec": {"a": 1}, "zzz": 1}],
    ),
]


def record_values(server):
    """Objects with one field each, good and bad, and what becomes of them."""
    properties = {f"p{i}": schema for i, (schema, _) in enumerate(VALUES)}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
    collection = server.define("values", "Value", schema)
    cases = []
    for i, (_, values) in enumerate(VALUES):
        for value in values:
            body = {"apiVersion": VERSION, "kind": "Value", "metadata": {"name": "x", "namespace": "default"}, "spec": {f"p{i}": value}}
            answer = server.call("POST", f"{collection}?fieldValidation=Warn&dryRun=All", body)
            answer = answer_of(*answer)
            if "object" in answer:
                answer["spec"] = answer.pop("object")["spec"]
            cases.append({"spec": body["spec"], "answer": answer})
    return {"schema": schema, "cases": cases}


# Schemas of `spec` that a CRD may or may not have.
SCHEMAS = [
    {},
    {"type": "array"},
    {"type": "array", "items": {}},
    {"type": "text"},
    {"type": "null"},
    {"type": "array", "items": [{"type": "string"}]},
    {"type": "object", "$ref": "#/x"},
    {"type": "object", "patternProperties": {"a": {"type": "string"}}, "definitions": {"a": {"type": "string"}}},
    {"type": "object", "id": "x", "dependencies": {"a": ["b"]}, "additionalItems": True},
    {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
    {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True},
    {"type": "object", "additionalProperties": {"type": "string", "default": "x"}},
    {"type": "object", "x-kubernetes-preserve-unknown-fields": False},
    {"type": "string", "pattern": "("},
    {"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"properties": {"b": {"minLength": 1}}}]},
    {"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"type": "object", "description": "d", "properties": {"a": {"default": "x", "nullable": True}}}]},
    {"type": "object", "properties": {"a": {"type": "string"}}, "not": {"additionalProperties": {"minLength": 1}, "x-kubernetes-map-type": "atomic"}},
    {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"x-kubernetes-int-or-string": True, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"maximum": 3}]},
    {"type": "integer", "anyOf": [{"type": "integer"}]},
    {"x-kubernetes-int-or-string": True, "x-kubernetes-preserve-unknown-fields": True},
    {"x-kubernetes-int-or-string": True, "type": "string"},
    {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"},
    {"type": "array", "items": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}, "x-kubernetes-list-type": "set"},
    {"type": "object", "x-kubernetes-list-type": "bag", "x-kubernetes-map-type": "x"},
    {"x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-map-type": "atomic"},
    {
        "type": "array",
        "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "object"}, "c": {"type": "string", "nullable": True, "default": "x"}}},
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["a", "b", "c", "d", "a"],
    },
    {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-map-keys": ["a"]},
    {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"},
    {"type": "array", "items": {"type": "string", "nullable": True}, "x-kubernetes-list-type": "set"},
    {"type": "object", "x-kubernetes-embedded-resource": True},
    {"type": "string", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
    {"type": "object", "x-kubernetes-embedded-resource": True, "additionalProperties": {"type": "string"}, "x-kubernetes-preserve-unknown-fields": True},
    {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"kind": {"type": "integer"}, "metadata": {"type": "string"}}},
    {"type": "object", "default": {"a": 1, "b": 2}, "properties": {"a": {"type": "string"}}},
    {"type": "integer", "default": 0, "minimum": 1},
    {"type": "integer", "default": 3},
    {"type": "string", "default": None},
    {"type": "object", "x-kubernetes-validations": [{"rule": " "}]},
    {"type": "object", "x-kubernetes-validations": [{"rule": "true", "message": " "}, {"rule": "true", "message": "a\nb"}, {"rule": "true &&\ntrue"}]},
    {"type": "object", "x-kubernetes-validations": [{"rule": "true", "reason": "Nope"}, {"rule": "true", "messageExpression": "  "}]},
    {
        "type": "object",
        "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}},
        "x-kubernetes-validations": [{"rule": "true", "fieldPath": ".b"}, {"rule": "true", "fieldPath": ".a['x.y']"}, {"rule": "true", "fieldPath": "a"}, {"rule": "true", "fieldPath": ".a[0]"}],
    },
]

# Rules of `spec`, which has the fields of RULES_SCHEMA, that may not compile.
RULES = [
    "true",
    "self.replicas",
    "self.replicas >",
    "self.nope == 1",
    "nope == 1",
    "has(self.replicas) && self.replicas > 0",
    "self.name.size() < 5",
    "self.name.nope()",
    "nope(self.name)",
    "self.name == self.replicas",
    "self.name + 1 == 'x'",
    "self.list.all(x, x.size() < 5)",
    "self.longList.all(x, self.longList.all(y, x == y))",
    "self.longList.all(x, self.longList.all(y, self.longList.all(z, x == y || y == z)))",
    "self.list.all(x, self.list.all(y, x == y))",
    "self.replicas == oldSelf.replicas",
    "self.items.all(i, i.key != '')",
    "self.labels.all(k, k.startsWith('a'))",
    "self.free.anything == 1",
    "self.when > timestamp('2020-01-01T00:00:00Z')",
    "self.__namespace__ == 'x'",
    "self.with__dash__dash == 'x'",
    "quantity(self.name).isGreaterThan(quantity('1'))",
    "self.name.matches('(')",
    "self.name.matches('^a+$')",
    "type(self.replicas) == int",
    "self.replicas in [1, 2]",
    "self.name in self.labels",
    "dyn(self.name) == 1",
    "self.metadata.name == 'x'",
]

RULES_SCHEMA = {
    "replicas": {"type": "integer"},
    "name": {"type": "string"},
    "list": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 10}},
    "longList": {"type": "array", "items": {"type": "string"}},
    "items": {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["key"],
        "items": {"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}, "value": {"type": "string"}}},
    },
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "when": {"type": "string", "format": "date-time"},
    "namespace": {"type": "string"},
    "with-dash": {"type": "string"},
    "count": {"x-kubernetes-int-or-string": True},
}


def record_schemas(server):
    """CRDs with good and bad schemas, and the findings."""
    cases = []
    for schema in SCHEMAS + [
        {"type": "object", "properties": RULES_SCHEMA, "x-kubernetes-validations": [{"rule": rule}]} for rule in RULES
    ]:
        crd = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"checks.{GROUP}"},
            "spec": {
                "group": GROUP,
                "scope": "Namespaced",
                "names": {"plural": "checks", "singular": "check", "kind": "Check", "listKind": "CheckList"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": schema}}},
                    }
                ],
            },
        }
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All"
        code, answer, _ = server.call("POST", crds, crd)
        case = {"schema": schema, "code": code}
        causes = (answer.get("details") or {}).get("causes")
        if causes:
            case["causes"] = causes
        elif code >= 300:
            case["message"] = answer.get("message")
        cases.append(case)
    return {"cases": cases}


# Rules that are evaluated: (rule, spec, old spec or None).
EVALUATED = [
    ({"rule": "self.replicas <= self.max"}, {"replicas": 1, "max": 2}, None),
    ({"rule": "self.replicas <= self.max"}, {"replicas": 3, "max": 2}, None),
    ({"rule": "self.replicas <= self.max"}, {"replicas": 3}, None),
    ({"rule": "!has(self.max) || self.replicas <= self.max"}, {"replicas": 3}, None),
    ({"rule": "self.replicas > 1", "message": "too few"}, {"replicas": 1}, None),
    ({"rule": "self.replicas > 1", "messageExpression": "'got ' + self.name"}, {"replicas": 1, "name": "x"}, None),
    ({"rule": "self.replicas > 1", "message": "m", "messageExpression": "'got ' + self.name"}, {"replicas": 1}, None),
    ({"rule": "self.replicas > 1", "message": "m", "messageExpression": "self.none"}, {"replicas": 1}, "compile"),
    ({"rule": "self.replicas > 1", "reason": "FieldValueForbidden", "fieldPath": ".replicas"}, {"replicas": 1}, None),
    ({"rule": "self.replicas > 1", "reason": "FieldValueRequired"}, {"replicas": 1}, None),
    ({"rule": "self.replicas > 1", "reason": "FieldValueDuplicate"}, {"replicas": 1}, None),
    ({"rule": "self.replicas > 1", "fieldPath": ".labels['a.b/c']"}, {"replicas": 1}, None),
    ({"rule": "self.replicas == oldSelf.replicas", "message": "immutable"}, {"replicas": 1}, None),
    ({"rule": "self.replicas == oldSelf.replicas", "message": "immutable"}, {"replicas": 1}, {"replicas": 2}),
    ({"rule": "self.replicas == oldSelf.replicas", "message": "immutable"}, {"replicas": 2, "name": "x"}, {"replicas": 2}),
    ({"rule": "oldSelf.hasValue() && self.replicas >= oldSelf.value().replicas", "optionalOldSelf": True}, {"replicas": 1}, None),
    ({"rule": "!oldSelf.hasValue() || self.replicas >= oldSelf.value().replicas", "optionalOldSelf": True}, {"replicas": 1}, {"replicas": 2}),
    ({"rule": "self.list.all(x, x.startsWith('a'))"}, {"list": ["a", "ab"]}, None),
    ({"rule": "self.list.all(x, x.startsWith('a'))"}, {"list": ["a", "b"]}, None),
    ({"rule": "self.list.exists_one(x, x == 'a')"}, {"list": ["a", "a"]}, None),
    ({"rule": "self.list.map(x, x + '!') == ['a!']"}, {"list": ["a"]}, None),
    ({"rule": "self.list.filter(x, x != 'a').size() == 0"}, {"list": ["a", "b"]}, None),
    ({"rule": "self.list.isSorted()"}, {"list": ["b", "a"]}, None),
    ({"rule": "'a' in self.labels && self.labels['a'] == 'b'"}, {"labels": {"a": "b"}}, None),
    ({"rule": "self.labels.all(k, self.labels[k] != '')"}, {"labels": {"a": ""}}, None),
    ({"rule": "self.when > timestamp('2020-01-01T00:00:00Z')"}, {"when": "2026-01-01T00:00:00Z"}, None),
    ({"rule": "self.when > timestamp('2020-01-01T00:00:00Z')"}, {"when": "2019-01-01T00:00:00Z"}, None),
    ({"rule": "self.period < duration('1h')"}, {"period": "30m"}, None),
    ({"rule": "self.period < duration('1h')"}, {"period": "2h"}, None),
    ({"rule": "self.count == 1 || self.count == '1'"}, {"count": "1"}, None),
    ({"rule": "type(self.count) == int ? self.count < 5 : self.count.endsWith('%')"}, {"count": "5%"}, None),
    ({"rule": "type(self.count) == int ? self.count < 5 : self.count.endsWith('%')"}, {"count": 7}, None),
    ({"rule": "self.__namespace__ == 'x'"}, {"namespace": "x"}, None),
    ({"rule": "self.with__dash__dash == 'x'"}, {"with-dash": "y"}, None),
    ({"rule": "self.under_score == 'x'"}, {"under_score": "x"}, None),
    ({"rule": "quantity(self.name).isGreaterThan(quantity('1Gi'))"}, {"name": "2Gi"}, None),
    ({"rule": "quantity(self.name).isGreaterThan(quantity('1Gi'))"}, {"name": "bad"}, None),
    ({"rule": "self.name.matches('^[a-z]+$')"}, {"name": "A"}, None),
    ({"rule": "self.name.lowerAscii() == 'abc'"}, {"name": "ABC"}, None),
    ({"rule": "1 / self.replicas == 1"}, {"replicas": 0}, None),
    ({"rule": "self.list[3] == 'a'"}, {"list": ["a"]}, None),
    ({"rule": "self.free == {'a': 1}"}, {"free": {"a": 1}}, "compile"),
    ({"rule": "self.nested.a == 1 && !has(self.nested.b)"}, {"nested": {"a": 1}}, None),
    ({"rule": "self.ratio > 0.5"}, {"ratio": 1}, None),
    ({"rule": "self.ratio > 0.5"}, {"ratio": 0.25}, None),
    ({"rule": "self.replicas % 2 == 0 && -self.replicas < 0"}, {"replicas": 3}, None),
    ({"rule": "self.set.size() == 2 && 'b' in self.set"}, {"set": ["a", "b"]}, None),
    ({"rule": "self.set == oldSelf.set"}, {"set": ["a", "b"]}, {"set": ["b", "a"]}),
    ({"rule": "self.items == oldSelf.items"}, {"items": [{"key": "a"}, {"key": "b"}]}, {"items": [{"key": "b"}, {"key": "a"}]}),
    ({"rule": "self.list == oldSelf.list"}, {"list": ["a", "b"]}, {"list": ["b", "a"]}),
    ({"rule": "url(self.name).getHost() == 'a.b'"}, {"name": "http://a.b/c"}, None),
    ({"rule": "isIP(self.name) && ip(self.name).family() == 4"}, {"name": "10.0.0.1"}, None),
    ({"rule": "isSemver(self.name)"}, {"name": "1.2.3"}, None),
    ({"rule": "self.list.sum() == 'x'"}, {"list": ["a"]}, "compile"),
    ({"rule": "[self.replicas, 2].sum() == 3 && [1, 2].max() == 2"}, {"replicas": 1}, None),
    ({"rule": "'%s-%d'.format([self.name, self.replicas]) == 'a-1'"}, {"name": "a", "replicas": 1}, None),
    ({"rule": "self.name.split(',').size() == 2 && self.name.replace(',', '') == 'ab'"}, {"name": "a,b"}, None),
    ({"rule": "self.name.find('[0-9]+') == '12' && self.name.findAll('[0-9]').size() == 2"}, {"name": "a12"}, None),
    ({"rule": "sets.contains(self.list, ['a'])"}, {"list": ["b"]}, None),
    ({"rule": "base64.decode(self.name) == b'hi'"}, {"name": "aGk="}, "compile"),
    ({"rule": "self.?name.orValue('x') == 'x' && !optional.none().hasValue()"}, {}, None),
    ({"rule": "self.data == b'hi'"}, {"data": "aGk="}, None),
    ({"rule": "self.name.charAt(0) == 'a' && self.name.indexOf('b') == 1 && self.name.substring(1) == 'b'"}, {"name": "ab"}, None),
    ({"rule": "cidr('10.0.0.0/8').containsIP(self.name)"}, {"name": "10.1.1.1"}, None),
    ({"rule": "size(self.name) == 2 && size(self.list) == 1"}, {"name": "\u00e9\u00e9", "list": ["a"]}, None),
    ({"rule": "int(self.name) == 12 && double('1.5') == 1.5 && string(true) == 'true'"}, {"name": "12"}, None),
    ({"rule": "self.when.getFullYear() == 2026 && self.when.getMonth() == 0"}, {"when": "2026-01-01T00:00:00Z"}, None),
]

EVALUATED_SCHEMA = dict(
    RULES_SCHEMA,
    max={"type": "integer"},
    period={"type": "string", "format": "duration"},
    nested={"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    ratio={"type": "number"},
    set={"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    data={"type": "string", "format": "byte"},
    under_score={"type": "string"},
)
EVALUATED_SCHEMA["name"] = {"type": "string", "maxLength": 50}
EVALUATED_SCHEMA["list"] = dict(RULES_SCHEMA["list"], maxItems=20)
EVALUATED_SCHEMA["labels"] = dict(RULES_SCHEMA["labels"], maxProperties=20)


def record_rules(server):
    """Rules and what they say about objects. All rules live in one CRD: every rule has a spec of its own."""
    cases = [(rule, spec, old) for rule, spec, old in EVALUATED if old != "compile"]
    properties = {
        f"r{i}": {"type": "object", "properties": EVALUATED_SCHEMA, "x-kubernetes-validations": [rule]}
        for i, (rule, _, _) in enumerate(cases)
    }
    schema = {"type": "object", "properties": properties}
    collection = server.define("rules", "Rule", schema)
    recorded = []
    for i, (rule, spec, old) in enumerate(cases):
        meta = {"apiVersion": VERSION, "kind": "Rule", "metadata": {"name": "x", "namespace": "default"}}
        new = dict(meta, **{f"r{i}": spec})
        case = {"rule": rule, "spec": spec}
        if old is None:
            answer = server.call("POST", f"{collection}?dryRun=All", new)
        else:
            case["old"] = old
            code, created, _ = server.call("POST", collection, dict(meta, **{f"r{i}": old}))
            assert code == 201, created
            new["metadata"] = dict(meta["metadata"], resourceVersion=created["metadata"]["resourceVersion"])
            answer = server.call("PUT", f"{collection}/x", new)
            server.call("DELETE", f"{collection}/x")
        answer = answer_of(*answer)
        answer.pop("object", None)
        answer.pop("message", None)
        case["answer"] = answer
        recorded.append(case)
    return {"properties": EVALUATED_SCHEMA, "cases": recorded}


CONTAINER = {
    "image": "i",
    "imagePullPolicy": "Always",
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}


def strategic_object():
    """A Deployment with lists of all sorts."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "x",
            "namespace": "default",
            "labels": {"a": "1", "b": "2"},
            "finalizers": ["e.com/a", "e.com/b", "e.com/c"],
        },
        "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {
                    "containers": [
                        dict(CONTAINER, name=name, env=[{"name": n, "value": "1"} for n in "xyz"], args=["a", "b"])
                        for name in ("one", "two", "three")
                    ],
                    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a", "b"]}, {"ip": "10.0.0.2", "hostnames": ["c"]}],
                    "imagePullSecrets": [{"name": "s1"}, {"name": "s2"}],
                    "nodeSelector": {"disk": "ssd"},
                    "tolerations": [{"key": "k", "operator": "Exists"}],
                },
            },
        },
    }


def pod(spec):
    return {"spec": {"template": {"spec": spec}}}


STRATEGIC = [
    {"metadata": {"labels": {"a": "3", "b": None, "c": None, "d": "4"}}},
    {"metadata": {"labels": {"$patch": "replace", "z": "1"}}},
    {"metadata": {"labels": {"$patch": "delete"}}},
    {"metadata": {"labels": {"$patch": "merge", "z": "1"}}},
    {"metadata": {"labels": None}},
    {"metadata": {"finalizers": ["e.com/d", "e.com/a", "e.com/d"]}},
    {"metadata": {"$deleteFromPrimitiveList/finalizers": ["e.com/a", "e.com/x"]}},
    {"metadata": {"$setElementOrder/finalizers": ["e.com/d", "e.com/b"], "finalizers": ["e.com/d"], "$deleteFromPrimitiveList/finalizers": ["e.com/a"]}},
    {"metadata": {"$setElementOrder/finalizers": ["e.com/c", "e.com/a"]}},
    {"metadata": {"$setElementOrder/finalizers": ["e.com/b"], "finalizers": ["e.com/d"]}},
    {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}},
    {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate", "rollingUpdate": {}}}},
    pod({"nodeSelector": {"disk": None, "zone": "z"}, "tolerations": [{"key": "l", "operator": "Exists"}]}),
    pod({"containers": [{"name": "two", "image": "j"}]}),
    pod({"containers": [{"name": "three", "image": "j"}, dict(CONTAINER, name="four"), {"name": "one", "args": ["z"]}]}),
    pod({"containers": [{"$patch": "delete", "name": "two"}]}),
    pod({"containers": [{"$patch": "delete", "name": "none"}]}),
    pod({"containers": [{"$patch": "replace"}, dict(CONTAINER, name="only")]}),
    pod({"containers": [{"$patch": "replace", "name": "one"}]}),
    pod({"containers": [{"$patch": "merge", "name": "one"}]}),
    pod({"containers": [{"image": "x"}]}),
    pod({"containers": [{"name": "one", "env": [{"name": "w", "value": "2"}, {"name": "y", "value": "3"}, {"$patch": "delete", "name": "x"}]}]}),
    pod({"containers": [{"name": "one", "$patch": "replace", "image": "j"}]}),
    pod({"containers": [{"name": "one", "$setElementOrder/env": [{"name": "z"}, {"name": "x"}]}]}),
    pod({"$setElementOrder/containers": [{"name": "three"}, {"name": "one"}, {"name": "new"}], "containers": [{"name": "one", "image": "j"}, dict(CONTAINER, name="new")]}),
    pod({"$setElementOrder/containers": [{"name": "two"}, {"name": "one"}], "containers": [{"name": "one", "image": "j"}, {"name": "two", "image": "j"}]}),
    pod({"hostAliases": [{"ip": "10.0.0.2", "hostnames": ["d"]}, {"ip": "10.0.0.3", "hostnames": ["e"]}]}),
    pod({"hostAliases": None, "imagePullSecrets": [{"name": "s3"}]}),
    pod({"imagePullSecrets": [{"$patch": "delete", "name": "s1"}, {"name": "s0"}]}),
    pod({"volumes": [{"name": "v", "emptyDir": {}}, {"$patch": "delete", "name": "w"}]}),
    pod({"containers": "x"}),
    pod(None),
]


def record_strategic(server):
    """Strategic merge patches of one Deployment."""
    collection = "/apis/apps/v1/namespaces/default/deployments"
    code, created, _ = server.call("POST", collection, strategic_object())
    assert code == 201, created
    cases = []
    for patch in STRATEGIC:
        answer = server.call("PATCH", f"{collection}/x?dryRun=All", patch, "application/strategic-merge-patch+json")
        answer = answer_of(*answer)
        if "object" in answer:
            answer["object"]["metadata"].pop("managedFields")
        cases.append({"patch": patch, "answer": answer})
    created = plain(created)
    created["metadata"].pop("managedFields")
    server.call("PATCH", f"{collection}/x", {"metadata": {"finalizers": None}}, "application/merge-patch+json")
    server.call("DELETE", f"{collection}/x")
    return {"object": created, "cases": cases}


def built_in_objects():
    """Objects of built-in kinds with lists and maps of all sorts: (path, first, second configuration)."""
    meta = {"name": "builtin", "namespace": "default"}
    container = {
        "name": "one",
        "image": "i",
        "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP", "name": "dns"}],
        "env": [{"name": "x", "value": "1"}, {"name": "y", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "args": ["a"],
        "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "livenessProbe": {"httpGet": {"port": "http", "path": "/"}},
        "securityContext": {"capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "containers": [container],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "p", "projected": {"sources": [{"secret": {"name": "s"}}]}}],
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "nodeSelector": {"a": "b"},
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["h"]}],
        "imagePullSecrets": [{"name": "s"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"a": "b"}}}
        ],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": []}]}}},
    }
    template = {"metadata": {"labels": {"app": "x"}}, "spec": spec}
    yield (
        "/apis/apps/v1/namespaces/default/deployments",
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": dict(meta, labels={"a": "1"}, annotations={"n": "1"}),
            "spec": {"replicas": 0, "paused": True, "selector": {"matchLabels": {"app": "x"}}, "template": template},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": dict(meta, labels={"b": "2"}),
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": "x"}},
                "template": {
                    "metadata": {"labels": {"app": "x"}},
                    "spec": {"containers": [{"name": "one", "env": [{"name": "x", "value": "2"}], "ports": [{"containerPort": 80, "name": "http"}]}]},
                },
            },
        },
    )
    yield (
        "/api/v1/namespaces/default/services",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": {"app": "x"}, "ports": [{"port": 80, "targetPort": "http"}, {"port": 53, "protocol": "UDP", "name": "dns"}, {"port": 53, "name": "dns-tcp"}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": {"app": "y"}, "ports": [{"port": 80, "name": "web"}], "type": "ClusterIP"},
        },
    )
    yield (
        "/api/v1/namespaces/default/configmaps",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": dict(meta, finalizers=["e.com/a"]), "data": {"a": "1", "b": "2"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": dict(meta, finalizers=["e.com/b"]), "data": {"b": "3"}, "binaryData": {"c": "aGk="}},
    )
    yield (
        "/api/v1/namespaces/default/pods",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": dict(meta, ownerReferences=[{"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "u"}]),
            "spec": dict(spec, serviceAccountName="default", automountServiceAccountToken=False),
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": dict(meta, labels={"x": "y"}), "spec": {"containers": [{"name": "one", "image": "j"}], "tolerations": [{"key": "l"}]}},
    )


def record_built_in(server):
    """Applies to built-in kinds: who owns what, and what conflicts."""
    server.call(
        "POST",
        "/api/v1/namespaces/default/serviceaccounts",
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}},
    )
    sequences = []
    for collection, first, second in built_in_objects():
        steps = []
        path = f"{collection}/builtin"
        plan = [("a", first, False), ("b", second, False), ("b", second, True), ("a", second, False), ("a", {"metadata": first["metadata"]}, True)]
        for manager, body, force in plan:
            body = dict({"apiVersion": first["apiVersion"], "kind": first["kind"]}, **body)
            url = f"{path}?fieldManager={manager}&force={str(force).lower()}"
            answer = answer_of(*server.call("PATCH", url, body, "application/apply-patch+yaml"))
            steps.append({"kind": "apply", "manager": manager, "force": force, "body": body, "answer": answer})
        patch = [{"op": "add", "path": "/metadata/labels", "value": {"updated": "yes"}}]
        answer = answer_of(*server.call("PATCH", f"{path}?fieldManager=u", patch, "application/json-patch+json"))
        steps.append({"kind": "update", "manager": "u", "patch": patch, "answer": answer})
        sequences.append(steps)
        server.call("PATCH", path, {"metadata": {"finalizers": None}}, "application/merge-patch+json")
        server.call("DELETE", f"{path}?gracePeriodSeconds=0")
    return {"sequences": sequences}


SUITES = {
    "apply": record_apply,
    "values": record_values,
    "schemas": record_schemas,
    "rules": record_rules,
    "strategic": record_strategic,
    "builtin": record_built_in,
}


def compact(thing):
    """JSON with one line per case, to keep differences readable."""
    lines = []
    for key in sorted(thing):
        value = thing[key]
        if isinstance(value, list):
            items = ",\n".join(json.dumps(item, sort_keys=True) for item in value)
            lines.append(f'"{key}": [\n{items}\n]')
        else:
            lines.append(f'"{key}": {json.dumps(value, sort_keys=True)}')
    return "{" + ",\n".join(lines) + "}\n"


def main():
    target = pathlib.Path(sys.argv[1])
    server = Server()
    try:
        for name, record in SUITES.items():
            if len(sys.argv) > 2 and name not in sys.argv[2:]:
                continue
            (target / f"{name}.json").write_text(compact(record(server)))
            print(f"recorded {name}")
    finally:
        server.close()


if __name__ == "__main__":
    main()
