"""Layers that the parts are made of; nothing in here is registered."""
