"""Moving files: how they are cut (plan), sent (upload) and fetched (download)."""
