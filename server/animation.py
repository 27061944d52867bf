"""Frames in, a body out."""

from server.accept import Offer

ANIMATED_TYPES = {
    "gif": "image/gif",
    "webp": "image/webp",
    "png": "image/png",
    "json": "application/json",
    "npy": "application/x-npy",
    "zip": "application/zip",
}
OFFERED = Offer(ANIMATED_TYPES)
