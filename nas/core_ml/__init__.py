"""Decoders as Core ML programs: conversion, reading them back, computing and proving them in PyTorch."""
