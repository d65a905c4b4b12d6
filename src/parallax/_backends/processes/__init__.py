"""Worker processes: how they start, how they are kept warm, how they are talked to."""
