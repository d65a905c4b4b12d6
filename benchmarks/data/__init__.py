"""Arrays and frames to processes and back, in time and in memory."""
