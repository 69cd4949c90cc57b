"""Images in many archives, the shards, and their codes: encoded anywhere, shard by shard, and loaded in one place."""
