"""Bundles in, pictures over HTTP out. Never imports torch."""
