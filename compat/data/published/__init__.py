"""Readers of published data sets, each from its official archive or its unpacked folder."""
