"""What bounds the reading of a file: known to the hub and to the program that reads."""

MAX_TEXT_BYTES = 4 * 1024 * 1024
MAX_DIFF_BYTES = 1024 * 1024
TIME_S = 20
