"""The cache: which list server owns which partition, and the answer to "give me the server of this list"."""
