"""What a node keeps on disk: the write-ahead log and the snapshots."""
