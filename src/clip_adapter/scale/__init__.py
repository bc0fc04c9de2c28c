"""Very many pictures: shard by shard, on one machine or on many."""
