"""Shard folders in object stores: s3://bucket/folder, gs://bucket/folder, az://container/folder.

An address stands for a local folder that mirrors it: manifests are copied, shards are read where they are, by ranges.
"""
