"""One file for each subject that the server answers about; here, the schemas that they share."""

from typing import Any

_STRING = {"type": "string"}
_NULLABLE_STRING = {"type": ["string", "null"]}

COMPONENTS: dict[str, Any] = {
    "Problem": {
        "description": "RFC 9457 problem details; the last three where one thing that was sent is to blame.",
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {**_STRING, "examples": ["urn:limner:problem:invalid-parameter"]},
            "title": _STRING,
            "status": {"type": "integer"},
            "detail": _STRING,
            "field": _STRING,
            "value": _STRING,
            "allowed": _STRING,
        },
    },
    "Images": {
        "description": "The json format of /generate. Seeds are decimal strings.",
        "type": "object",
        "required": ["model", "version", "digest", "images"],
        "properties": {
            "model": _STRING,
            "version": {"type": "integer"},
            "digest": _STRING,
            "images": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["seed", "label", "class", "png"],
                    "properties": {
                        "seed": _STRING,
                        "label": {"type": ["integer", "null"]},
                        "class": _NULLABLE_STRING,
                        "png": {**_STRING, "contentEncoding": "base64", "contentMediaType": "image/png"},
                    },
                },
            },
        },
    },
}
